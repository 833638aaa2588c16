"""`weakmask browse`: a local web page that shows all artifacts of one run, or of several.

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
    help="Git revision, tag or DVC experiment to show too, from DVC's cache; repeatable.",
)
@click.option(
    "--open/--no-open", "open_", default=True, show_default=True, help="Open the page in a browser."
)
def browse(port: int, revisions: tuple[str, ...], open_: bool) -> None:
    """Browse all artifacts in a local web page.

    A grid of images to sort and filter, worst first, and a page per image with every step as a
    layer. It writes nothing, and nothing leaves this machine; `dvc repro` may replace artifacts
    meanwhile. Ctrl-C ends it.
    """
    if find_spec("nicegui") is None:
        raise UserError("browse: needs the package nicegui; `pip install -e '.[browse]'`")
    # these take seconds to import, which other commands need not wait for
    from pipeline.browser import app

    with TemporaryDirectory(prefix=f"weakmask-browse-{os.getpid()}-") as scratch:
        runs = find_runs(revisions, Path(scratch))
        opened = app.listen(port)
        address = f"http://{app.HOST}:{opened.getsockname()[1]}"
        click.echo(f"{address} shows {', '.join(run.name for run in runs)}; Ctrl-C ends it")
        if open_:
            # some browsers block the caller until they are closed
            Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        # otherwise nothing is cleaned up when a session or a container ends
        before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        try:
            app.serve(runs, opened)
        finally:
            signal.signal(signal.SIGTERM, before)


def find_runs(revisions: tuple[str, ...], scratch: Path) -> list["Run"]:
    """Return the workspace, if it has a dataset, and the revisions; UserError if one is missing."""
    from stages.experiments.runs import revision, workspace

    runs = [workspace()] if DATASET.exists() or not revisions else []
    for run in runs:
        _ = run.index  # a damaged or missing dataset is reported before anything is opened
    for number, name in enumerate(dict.fromkeys(revisions)):
        try:
            runs.append(revision(name, scratch / str(number)))
        except UserError as error:
            raise UserError(f"--rev {error}") from error
    return runs
