"""Runs to look into: the one in the workspace, and those of Git revisions and DVC experiments, read from DVC's cache as it lies.

https://dvc.org/doc/user-guide/project-structure/internal-files#structure-of-the-cache-directory
"""

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from pipeline.browser.runs import FORMATS, SCORED, Fresh, Places, Run
from pipeline.errors import UserError
from stages.comparison.experiments import LOCK
from stages.comparison.repository import PARAMETERS, ExperimentError, dvc, git
from stages.entry import DATA, DATASET, artefact

WORKSPACE = "workspace"
EXPERIMENTS = "refs/exps"


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
    lock = _committed(commit, LOCK)
    if not lock:
        raise UserError(
            f"--rev {name}: commit {commit[:10]} holds no {LOCK}, so it is not known what its run wrote; "
            "commit dvc.lock with your runs, or name an experiment of `dvc exp list`"
        )
    outs = {out["path"]: out for stage in _stages(lock).values() for out in stage.get("outs", [])}
    parameters = made_with(_committed(commit, PARAMETERS), lock)
    return Run(name, _places(name, outs, scratch), lambda: parameters)


def find_commit(name: str) -> str:
    """The commit of a revision, tag, or DVC experiment (one that starts from HEAD first); raises UserError."""
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()
    except ExperimentError:
        pass
    lines = git("for-each-ref", EXPERIMENTS, "--format=%(refname) %(objectname)").splitlines()
    refs = [tuple(line.split(" ")) for line in lines]
    found = {ref: commit for ref, commit in refs if ref.rpartition("/")[2] == name}
    if not found:
        known = ", ".join(sorted({ref.rpartition("/")[2] for ref, _ in refs if len(ref.split("/")) == 5}))
        raise UserError(
            f"--rev {name}: no Git revision, tag or DVC experiment of this name; "
            + (
                f"experiments are {known}"
                if known
                else "there are no experiments, see `dvc exp list --all-commits`"
            )
        )
    head = git("rev-parse", "HEAD").strip()
    here = [
        commit for ref, commit in found.items() if ref.startswith(f"{EXPERIMENTS}/{head[:2]}/{head[2:]}/")
    ]
    if here or len(found) == 1:
        return (here or list(found.values()))[0]
    commits = ", ".join(commit[:10] for commit in found.values())
    raise UserError(f"--rev {name}: several commits have an experiment of this name; give one of {commits}")


def made_with(parameters: str, lock: str) -> Mapping[str, Any]:
    """Parameters by section: those of the parameter file, or where a stage ran the ones that it ran with.

    A section is its stage's own; others that track it too, such as the report, may have run before it last.
    """
    values: dict[str, Any] = _mapping(parameters)
    for name, stage in _stages(lock).items():
        for key, value in stage.get("params", {}).get(PARAMETERS, {}).items():
            *sections, last = key.split(".")
            if key.split(".")[0] != name.partition("@")[0]:
                continue
            section = values
            for part in sections:
                section = section.setdefault(part, {})
            section[last] = value
    return values


def _places(name: str, outs: Mapping[str, Any], scratch: Path) -> Places:
    """Where DVC's cache holds what a run wrote."""
    lacking: dict[str, str] = {}
    artefacts = {}
    for format_ in FORMATS:
        path = artefact(format_).as_posix()
        if path in outs:
            artefacts[format_] = _cached(outs[path])
            if not artefacts[format_].is_file():
                lacking[format_] = _lost(path, name, artefacts[format_])
    tables = {}
    for step in SCORED:
        path = (DATA / "scores" / step).as_posix()
        if path in outs:
            files = _folder(outs[path])
            if files is None or not files.get("pictures.csv", Path()).is_file():
                lacking[f"scores of {step}"] = _lost(path, name, _cached(outs[path]))
            else:
                tables[step] = files["pictures.csv"]
    return Places(_dataset(name, outs, scratch), artefacts, tables, lacking)


def _dataset(name: str, outs: Mapping[str, Any], scratch: Path) -> Path:
    """The folder of a run's dataset: the workspace's if it is the same, else one of links into the cache."""
    path = DATASET.as_posix()
    if path not in outs:
        raise UserError(f"--rev {name}: its run has no {path}, so there are no pictures to show")
    here = {
        out["path"]: out for stage in _stages(_text(Path(LOCK))).values() for out in stage.get("outs", [])
    }
    if here.get(path, {}).get("md5") == outs[path]["md5"] and DATASET.is_dir():
        return DATASET
    files = _folder(outs[path])
    if files is None or not all(file.is_file() for file in files.values()):
        raise UserError(f"--rev {name}: {_lost(path, name, _cached(outs[path]))}")
    for relative, file in files.items():
        link = scratch / relative
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    return scratch


def _folder(out: Mapping[str, Any]) -> dict[str, Path] | None:
    """The files of a cached folder by relative path; None if its list is not in the cache."""
    try:
        entries = json.loads(_cached(out).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {entry["relpath"]: _cached({**out, "md5": entry["md5"]}) for entry in entries}


def _cached(out: Mapping[str, Any]) -> Path:
    """Where DVC's cache holds an output of a lock file; those of DVC before 3.0 name no hash and lie one level higher."""
    top = _cache() / "files" / "md5" if "hash" in out else _cache()
    return top / out["md5"][:2] / out["md5"][2:]


@cache
def _cache() -> Path:
    """The folder of DVC's cache."""
    return Path(dvc("cache", "dir").strip())


def _lost(path: str, name: str, file: Path) -> str:
    return (
        f"{path} of {name} is not in DVC's cache ({file}); `dvc fetch --all-commits` gets what was pushed "
        f"(of an experiment, `dvc exp pull REMOTE {name}`), else run it again"
    )


def _committed(commit: str, file: str) -> str:
    """A file of this folder in a commit, empty if it has none."""
    try:
        return git("show", f"{commit}:./{file}")
    except ExperimentError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _stages(lock: str) -> Mapping[str, Any]:
    return _mapping(lock).get("stages") or {}


def _mapping(text: str) -> dict[str, Any]:
    """A YAML mapping; an empty one for anything else."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        values = yaml.load(text, loader)
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def scratch_folder() -> TemporaryDirectory[str]:
    """A temporary folder for links, removed at the end."""
    return TemporaryDirectory(prefix=f"weakmask-browse-{os.getpid()}-")
