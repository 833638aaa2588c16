"""`weakmask browse`: a local web page over whatever artifacts exist, of one run or of several
beside each other.

weakmask browse
weakmask browse --rev one-scale --rev v1.0 --port 8090 --no-open
"""

import os
import signal
import sys
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING

import click

from pipeline.errors import UserError
from stages._command import DATASET

if TYPE_CHECKING:
    from pipeline.browser.run import Run


@click.command()
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port; 0 for any free one.",
)
@click.option(
    "--rev",
    "revisions",
    multiple=True,
    metavar="NAME",
    help="A Git revision, tag or DVC experiment to show beside this run, from DVC's cache; may be given several times.",
)
@click.option(
    "--open/--no-open", "open_", default=True, show_default=True, help="Open the page in a browser."
)
def browse(port: int, revisions: tuple[str, ...], open_: bool) -> None:
    """Look into all artifacts in a local web page.

    A grid of images to sort and filter, worst first, and a page per image with every step as a
    layer. Nothing is written, nothing leaves this machine, and artifacts may be replaced by `dvc
    repro` meanwhile. Ctrl-C ends it.
    """
    if find_spec("nicegui") is None:
        raise UserError("browse: needs the package nicegui; `pip install -e '.[browse]'`")
    # the page's library and the networks' take seconds to import, which other commands need not
    # wait for
    from pipeline.browser import app

    with TemporaryDirectory(prefix=f"weakmask-browse-{os.getpid()}-") as scratch:
        runs = find_runs(revisions, Path(scratch))
        opened = app.listen(port)
        address = f"http://{app.HOST}:{opened.getsockname()[1]}"
        click.echo(f"{address} shows {', '.join(run.name for run in runs)}; Ctrl-C ends it")
        if open_:
            # some browsers hold the caller until they are closed
            Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        # else nothing is tidied up when a session or a container ends
        before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        try:
            app.serve(runs, opened)
        finally:
            signal.signal(signal.SIGTERM, before)


def find_runs(revisions: tuple[str, ...], scratch: Path) -> list["Run"]:
    """The workspace, if it has a dataset, and the revisions; raises UserError if there is nothing
    to show.
    """
    from stages.experiments.runs import workspace

    here = [workspace()] if DATASET.exists() or not revisions else []
    for run in here:
        # a damaged or missing dataset says so before anything is opened
        _ = run.index
    names = dict.fromkeys(revisions)
    return [*here, *(_find(name, scratch / str(number)) for number, name in enumerate(names))]


def _find(name: str, scratch: Path) -> "Run":
    """The run of a revision; errors name the option."""
    from stages.experiments.runs import revision

    try:
        return revision(name, scratch)
    except UserError as error:
        raise UserError(f"--rev {error}") from error
