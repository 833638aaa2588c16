"""`weakmask inspect`: describe an artifact or unfinished work, and name what is odd in it.

weakmask inspect                                   # a line on everything in data/
weakmask inspect data/cams.h5 2007_000504 -o sheet.png
weakmask inspect data/scores 2007_000504           # its score at every step
weakmask inspect .work                             # the progress of running stages
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
    "-o", "--output", type=click.Path(path_type=Path), help="PNG; default: data/inspect/ID.png."
)
def inspect(path: Path, name: str | None, output: Path | None) -> None:
    """Describe an ARTIFACT and what is odd in it, or draw one of its images.

    With an ID, draw that image, or print its scores. ARTIFACT is any file or folder in data/ (all
    of data/ by default), or a folder of unfinished work such as .work/cams, also while a stage
    writes it.
    """
    from pipeline.core.resume import write_atomically
    from pipeline.views.gallery import look_up
    from pipeline.views.inspect import describe, unfinished_folders
    from pipeline.views.sheets import png

    if name is not None:
        found = look_up(path, name, DATASET)
        if isinstance(found, np.ndarray):
            target = output or DATA / "inspect" / f"{name.replace('/', '_')}.png"
            write_atomically(target, png(found))
            found = [f"drew {name} to {target}"]
        click.echo("\n".join(found))
        return
    work = Path(os.environ.get("WEAKMASK_WORK", ".work"))
    stages = sorted({folder.parent.name for folder in unfinished_folders(work)})
    if path == work and not stages:
        click.echo("no stage is under way")
        return
    click.echo("\n".join(describe(path)))
    if path == DATA and stages:
        click.echo(f"unfinished work of {', '.join(stages)}: weakmask inspect {work}")
