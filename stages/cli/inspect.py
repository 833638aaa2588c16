"""`weakmask inspect`: what an artifact, a table, a report or unfinished work holds, and what is odd
in it.

weakmask inspect                                   # a line on everything in data/
weakmask inspect data/cams.h5 2007_000504 -o sheet.png
weakmask inspect .work                             # how far the stages under way have come
"""

import os
from pathlib import Path

import click
import numpy as np

from stages._command import DATA, DATASET


@click.command()
@click.argument("path", metavar="[ARTIFACT]", type=click.Path(path_type=Path), default=DATA)
@click.argument("name", metavar="[ID]", required=False)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="PNG to draw to; ID.png by default."
)
def inspect(path: Path, name: str | None, output: Path | None) -> None:
    """Describe an ARTIFACT, or draw one image of it.

    Says what it holds and what is odd in it; with an ID, draws that image's sheet, or prints its
    rows of scores. ARTIFACT is any file or folder in data/ (all of data/ by default), or a folder
    of unfinished work such as .work/cams, also while it is written.
    """
    from pipeline.core.resume import write_atomically
    from pipeline.views import inspection
    from pipeline.views.sheets import png, png_name

    if name is None:
        click.echo("\n".join(inspection.inspect(path)))
        for line in _unfinished(path):
            click.echo(line)
        return
    found = inspection.look_up(path, name, DATASET)
    if isinstance(found, np.ndarray):
        target = output or Path(png_name(name.replace("/", "_")))
        write_atomically(target, png(found))
        click.echo(f"drew {name} to {target}")
    else:
        click.echo("\n".join(found))


def _unfinished(path: Path) -> list[str]:
    """Where unfinished work lies, if all of data/ is asked for and there is any."""
    work = Path(os.environ.get("WEAKMASK_WORK", ".work"))
    there = sorted(stage.name for stage in work.glob("*/")) if path == DATA else []
    return [f"unfinished work of {', '.join(there)}: weakmask inspect {work}"] if there else []
