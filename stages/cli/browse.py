"""`weakmask browse`: a local web page that shows all artifacts of one run, or of several.

weakmask browse
weakmask browse --rev one-scale --rev v1.0 --port 8090 --no-open
weakmask browse --picked out/correct
"""

import os
import signal
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

import click

from pipeline.browser.run import FORMATS, TABLES, ReloadingFile, Run, RunPaths
from pipeline.data.index import HEADER
from pipeline.errors import UserError
from pipeline.readers.source import HINTS
from pipeline.views.report_data import read_rows
from stages._command import DATA, DATASET, artifact
from stages.experiments.dvc_cache import (
    LOCK,
    PARAMETERS,
    CachedRun,
    is_in,
    locked_stages,
    run_parameters,
)

if TYPE_CHECKING:
    from pipeline.browser.clicks import Clicks

WORKSPACE = "workspace"
PICKED = "picked.csv"


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
    "--picked",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder that weakmask pick wrote, whose images are marked.",
)
@click.option(
    "--open/--no-open", "open_", default=True, show_default=True, help="Open the page in a browser."
)
def browse(port: int, revisions: tuple[str, ...], picked: Path | None, open_: bool) -> None:
    """Browse all artifacts in a local web page.

    A grid of images to sort and filter, worst first, and a page per image with every step as a
    layer. It writes nothing but the points and boxes that you save as hints, and nothing leaves
    this machine; `dvc repro` may replace artifacts meanwhile. Ctrl-C ends it.
    """
    # this takes seconds to import, which other commands need not wait for
    from pipeline.browser.app import Server

    with TemporaryDirectory(prefix=f"weakmask-browse-{os.getpid()}-") as scratch:
        runs = find_runs(revisions, Path(scratch))
        server = Server(runs, port, clicks_of(runs[0]), picked_images(picked) if picked else ())
        click.echo(f"{server.address} shows {', '.join(run.name for run in runs)}; Ctrl-C ends it")
        if open_:
            # some browsers block the caller until they are closed
            Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        # otherwise nothing is cleaned up when a session or a container ends
        before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        try:
            with server, suppress(KeyboardInterrupt):
                server.serve_forever()
        finally:
            signal.signal(signal.SIGTERM, before)


def clicks_of(run: Run) -> "Clicks | None":
    """Return what takes clicks on images of the workspace, None without a source of one's own."""
    from pipeline.browser.clicks import Clicks

    with suppress(UserError):
        if run.name == WORKSPACE and run.value("dataset", "format") != "scenes":
            return Clicks(Path(run.value("dataset", "source")) / HINTS)
    return None


def picked_images(folder: Path) -> list[str]:
    """Return the images that weakmask pick wrote to a folder."""
    try:
        return [row["image"] for row in read_rows(folder / PICKED)]
    except (UserError, KeyError) as error:
        reason = f"{folder / PICKED}: not as weakmask pick writes it"
        raise UserError(f"--picked: {reason}; pick again") from error


def find_runs(revisions: tuple[str, ...], scratch: Path) -> list[Run]:
    """Return the workspace, if it has a dataset, and the revisions; UserError if one is missing."""
    runs = [workspace()] if DATASET.exists() or not revisions else []
    for run in runs:
        _ = run.index  # a damaged or missing dataset is reported before anything is opened
    for number, name in enumerate(dict.fromkeys(revisions)):
        try:
            runs.append(revision(name, scratch / str(number)))
        except UserError as error:
            raise UserError(f"--rev {error}") from error
    return runs


def workspace() -> Run:
    """Return the run whose artifacts lie in the working directory, where they may change."""
    paths = RunPaths(
        DATASET,
        {name: artifact(name) for name in FORMATS},
        {(step, table): DATA / "scores" / step / f"{table}.csv" for step, table in TABLES},
    )
    return Run(
        WORKSPACE, paths, ReloadingFile((Path(PARAMETERS), Path(LOCK)), _workspace_parameters)
    )


def revision(name: str, scratch: Path) -> Run:
    """Return the run of a Git revision, tag or DVC experiment.

    Stale outputs, and outputs that the cache lacks, are listed as missing with the reason.

    Args:
        name: Revision, tag or experiment.
        scratch: Empty folder, for links into the cache.

    Raises:
        UserError: There is no such revision, no run in it, or its images are not cached.
    """
    run = CachedRun(name)
    artifacts: dict[str, Path] = {}
    tables: dict[tuple[str, str], Path] = {}
    missing: dict[str, str] = {}
    stale: dict[str, None] = {}
    places: dict[str | tuple[str, str], Path] = {key: artifact(key) for key in FORMATS}
    places |= {key: DATA / "scores" / key[0] / f"{key[1]}.csv" for key in TABLES}
    for key, place in places.items():
        path = place.as_posix()
        title = key if isinstance(key, str) else f"scores of {key[0]}"
        if is_in(path, run.stale):
            stale[title] = None
        elif is_in(path, run.outs):
            try:
                if isinstance(key, str):
                    artifacts[key] = run.file(path)
                else:
                    tables[key] = run.file(path)
            except UserError as error:
                missing[title] = str(error)
    reason = f"{name}: hidden, as another run made them: {', '.join(stale)}; run the experiment "
    missing |= dict.fromkeys(stale, f"{reason}without targets to update them")
    paths = RunPaths(_dataset(run, scratch), artifacts, tables, missing)
    return Run(name, paths, lambda: run.parameters)


def _dataset(run: CachedRun, scratch: Path) -> Path:
    """Return the workspace's dataset if it is the run's, else a folder of links into the cache."""
    path, index = DATASET.as_posix(), DATASET / HEADER
    # the index holds a digest of all files
    if index.is_file() and index.read_bytes() == run.file(f"{path}/{HEADER}").read_bytes():
        return DATASET
    for file in run.files(path):
        link = scratch / PurePosixPath(file).relative_to(path)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(run.file(file))
    return scratch


def _workspace_parameters() -> dict[str, Any]:
    """Return the parameters of the workspace's run; raise UserError if params.yaml is damaged."""
    text = _text(PARAMETERS)
    with suppress(UserError, AttributeError):  # while DVC is writing the lock file
        return run_parameters(text, locked_stages(_text(LOCK)))
    return run_parameters(text, {})


def _text(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8")
    return ""
