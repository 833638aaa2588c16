"""Runs to look into: the one in the workspace, and those of Git revisions and DVC experiments (see
cached).
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.browser.run import FORMATS, SCORED, ReloadingFile, Run, RunPaths
from pipeline.errors import UserError
from stages._command import DATA, DATASET, artifact
from stages.experiments.cached import (
    Out,
    cached,
    committed,
    find_commit,
    folder,
    lock_of,
    lost,
    outs_of,
)
from stages.experiments.lineage import made_with, outdated
from stages.experiments.repository import LOCK, PARAMETERS

WORKSPACE = "workspace"


def workspace() -> Run:
    """The run whose artifacts lie in the working directory; what exists may change while it is
    looked at.
    """
    places = RunPaths(
        DATASET,
        {name: artifact(name) for name in FORMATS},
        {name: DATA / "scores" / name / "images.csv" for name in SCORED},
    )
    files = Path(PARAMETERS), Path(LOCK)
    return Run(WORKSPACE, places, ReloadingFile(files, lambda: made_with(*map(_text, files))))


def revision(name: str, scratch: Path) -> Run:
    """The run of a Git revision, tag or DVC experiment; scratch: an empty folder for links into the
    cache.

    What DVC's cache does not hold, and what is left from another run, is listed as lacking. Raises
    UserError if there is no such revision, or no run in it.
    """
    commit = find_commit(name)
    lock = lock_of(name, commit)
    parameters = made_with(committed(commit, PARAMETERS), lock)
    return Run(
        name, _places(name, outs_of(lock), outdated(lock, parameters), scratch), lambda: parameters
    )


def _places(name: str, outs: Mapping[str, Out], left: Collection[str], scratch: Path) -> RunPaths:
    """Where DVC's cache holds what a run wrote; left: paths of outputs that are left from another
    run.
    """
    tables = {step: (DATA / "scores" / step).as_posix() for step in SCORED}
    named = {format_: artifact(format_).as_posix() for format_ in FORMATS}
    named |= {f"scores of {step}": path for step, path in tables.items()}
    old = [key for key, path in named.items() if path in left]
    lacking = dict.fromkeys(
        old,
        f"{name}: {', '.join(old)} are left from another run, so they are not shown; "
        "an experiment without targets makes everything",
    )
    there = {key: outs[path] for key, path in named.items() if path in outs and key not in old}
    artifacts = {format_: cached(there[format_]) for format_ in FORMATS if format_ in there}
    for format_, file in artifacts.items():
        if not file.is_file():
            lacking[format_] = lost(named[format_], name, file)
    found: dict[str, Path] = {}
    for step, path in tables.items():
        if out := there.get(f"scores of {step}"):
            files = folder(out) or {}
            if files.get("images.csv", Path()).is_file():
                found[step] = files["images.csv"]
            else:
                lacking[f"scores of {step}"] = lost(path, name, cached(out))
    return RunPaths(_dataset(name, outs, scratch), artifacts, found, lacking)


def _dataset(name: str, outs: Mapping[str, Out], scratch: Path) -> Path:
    """The folder of a run's dataset: the workspace's if it is the same, else one of links into the
    cache.
    """
    path = DATASET.as_posix()
    if path not in outs:
        raise UserError(f"{name}: its run has no {path}, so there are no images to show")
    here = outs_of(_text(Path(LOCK)))
    if here.get(path, {}).get("md5") == outs[path]["md5"] and DATASET.is_dir():
        return DATASET
    files = folder(outs[path])
    if files is None or not all(file.is_file() for file in files.values()):
        raise UserError(f"{name}: {lost(path, name, cached(outs[path]))}")
    for relative, file in files.items():
        link = scratch / relative
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    return scratch


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def scratch_folder() -> TemporaryDirectory[str]:
    """A temporary folder for links, removed at the end."""
    return TemporaryDirectory(prefix=f"weakmask-browse-{os.getpid()}-")
