"""Runs to look into: the one in the workspace, and those of Git revisions and DVC experiments (see cached)."""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.browser.runs import FORMATS, SCORED, Fresh, Places, Run
from pipeline.errors import UserError
from stages.cached import (
    Out,
    cached,
    committed,
    find_commit,
    folder,
    lock_of,
    lost,
    mapping_of,
    outs_of,
    stages_of,
)
from stages.comparison.repository import LOCK, PARAMETERS
from stages.entry import DATA, DATASET, artefact

WORKSPACE = "workspace"


def workspace() -> Run:
    """The run whose artefacts lie in the working directory; what exists may change while it is looked at."""
    places = Places(
        DATASET,
        {name: artefact(name) for name in FORMATS},
        {name: DATA / "scores" / name / "pictures.csv" for name in SCORED},
    )
    files = Path(PARAMETERS), Path(LOCK)
    return Run(WORKSPACE, places, Fresh(files, lambda: made_with(*map(_text, files))))


def revision(name: str, scratch: Path) -> Run:
    """The run of a Git revision, tag or DVC experiment; scratch: an empty folder for links into the cache.

    What DVC's cache does not hold is listed as lacking. Raises UserError if there is no such revision, or no run in it.
    """
    commit = find_commit(name)
    lock = lock_of(name, commit)
    parameters = made_with(committed(commit, PARAMETERS), lock)
    return Run(name, _places(name, outs_of(lock), scratch), lambda: parameters)


def made_with(parameters: str, lock: str) -> Mapping[str, Any]:
    """Parameters by section: those of the parameter file, or where a stage ran the ones that it ran with.

    A section is its stage's own; others that track it too, such as the report, may have run before it last.
    """
    values: dict[str, Any] = mapping_of(parameters)
    for name, stage in stages_of(lock).items():
        for key, value in stage.get("params", {}).get(PARAMETERS, {}).items():
            *sections, last = key.split(".")
            if key.split(".")[0] != name.partition("@")[0]:
                continue
            section = values
            for part in sections:
                section = section.setdefault(part, {})
            section[last] = value
    return values


def _places(name: str, outs: Mapping[str, Out], scratch: Path) -> Places:
    """Where DVC's cache holds what a run wrote."""
    lacking: dict[str, str] = {}
    artefacts = {}
    for format_ in FORMATS:
        path = artefact(format_).as_posix()
        if path in outs:
            artefacts[format_] = cached(outs[path])
            if not artefacts[format_].is_file():
                lacking[format_] = lost(path, name, artefacts[format_])
    tables = {}
    for step in SCORED:
        path = (DATA / "scores" / step).as_posix()
        if path in outs:
            files = folder(outs[path])
            if files is None or not files.get("pictures.csv", Path()).is_file():
                lacking[f"scores of {step}"] = lost(path, name, cached(outs[path]))
            else:
                tables[step] = files["pictures.csv"]
    return Places(_dataset(name, outs, scratch), artefacts, tables, lacking)


def _dataset(name: str, outs: Mapping[str, Out], scratch: Path) -> Path:
    """The folder of a run's dataset: the workspace's if it is the same, else one of links into the cache."""
    path = DATASET.as_posix()
    if path not in outs:
        raise UserError(f"{name}: its run has no {path}, so there are no pictures to show")
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
