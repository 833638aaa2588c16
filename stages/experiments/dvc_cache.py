"""Outputs of a Git revision or DVC experiment in DVC's cache, found by the revision's dvc.lock.

A lock file lists per stage what it read (`deps`, `params`) and wrote (`outs`) with MD5 digests; the
cache holds an output under its digest, and a folder as a JSON list of its files.

https://dvc.org/doc/user-guide/project-structure/dvcyaml-files#dvclock-file
https://dvc.org/doc/user-guide/project-structure/internal-files#structure-of-the-cache-directory
"""

import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter
from ruamel.yaml import YAML

from pipeline.errors import UserError

PARAMETERS, LOCK = "params.yaml", "dvc.lock"
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{3,}(\.dir)?$")]


class ListedFile(BaseModel):
    """A file in the cached list of a folder."""

    relpath: str
    md5: Digest


class LockedFile(BaseModel):
    """A dependency or output of a stage."""

    path: str
    md5: Digest | None = None


class LockedStage(BaseModel):
    """What a stage read, wrote, and ran with: parameter file -> dotted name -> value."""

    deps: list[LockedFile] = []
    outs: list[LockedFile] = []
    params: dict[str, dict[str, Any]] = {}

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of params.yaml by dotted name."""
        return self.params.get(PARAMETERS, {})


class CachedRun:
    """A run of a Git revision, tag or DVC experiment, whose outputs DVC's cache holds.

    outs: outputs by path; parameters: by section, as the run was made with them; stale: paths of
    outputs that another run made. Raises UserError for an unknown name or a revision without a run.
    """

    def __init__(self, name: str) -> None:
        commit = find_commit(name)
        text = committed(commit, LOCK)
        if not text:
            raise UserError(
                f"{name}: commit {commit[:10]} has no {LOCK}, so its outputs are unknown; "
                f"commit {LOCK} with your runs, or name an experiment of `dvc exp list`"
            )
        self.name, self.stages = name, parse_lock(text, f"{name}:{LOCK}")
        self.outs = outputs(self.stages)
        self.parameters = run_parameters(committed(commit, PARAMETERS), self.stages)
        self.stale = stale_outputs(self.stages, self.parameters)

    def file(self, path: str, inside: str | None = None) -> Path:
        """Return the cached file of output `path`, or of the file `inside` that folder.

        Raise UserError if the run did not write it, if it is stale, or if it is not in the cache.
        """
        if path not in self.outs:
            raise UserError(f"{self.name}: its run wrote no {path}; run the stage there")
        if path in self.stale:
            raise UserError(
                f"{self.name}: its {path} comes from another run; run the experiment without "
                "targets to update it"
            )
        file = cache_path(self.outs[path])
        if inside is not None and (files := cached_files(self.outs[path])) is not None:
            if inside not in files:
                raise UserError(f"{self.name}: its {path} has no {inside}; run the stage again")
            path, file = f"{path}/{inside}", files[inside]
        if not file.is_file():
            raise UserError(
                f"{path} of {self.name} is not in DVC's cache ({file}); `dvc fetch --all-commits` "
                f"downloads what was pushed (`dvc exp pull REMOTE {self.name}` for an experiment), "
                "else run it again"
            )
        return file


def git(*arguments: str) -> str:
    """Return what a Git command prints; raise UserError with its message if it fails."""
    return _run("git", *arguments)


def is_tracked(folder: Path) -> bool:
    """Return whether Git or DVC tracks what is in a folder, True outside of any repository."""
    try:
        listed = git("ls-files", "--", str(folder))
    except UserError:
        return True
    return bool(listed) or Path(f"{folder}.dvc").is_file()


def dvc(*arguments: str) -> str:
    """Return what a DVC command prints; raise UserError with its message if it fails."""
    return _run(sys.executable, "-m", "dvc", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        name = " ".join(command).removeprefix(f"{sys.executable} -m ")
        raise UserError(f"`{name}`: {(done.stderr or done.stdout).strip().removeprefix('ERROR: ')}")
    return done.stdout


def find_commit(name: str) -> str:
    """Return the commit of a Git revision, tag or DVC experiment; raise UserError without one.

    Of several experiments with one name, that of the current commit is meant.
    """
    with suppress(UserError):
        commit = f"{name}^{{commit}}"
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", commit).strip()
    lines: list[str] = []
    with suppress(UserError):  # outside of a Git repository
        lines = git("for-each-ref", "refs/exps", "--format=%(refname) %(objectname)").splitlines()
    # refs/exps/<commit it started from, split after two digits>/<name>; others are DVC's own
    refs = [(ref.split("/")[2:], commit) for ref, commit in map(str.split, lines)]
    experiments = [(f"{ref[0]}{ref[1]}", ref[2], commit) for ref, commit in refs if len(ref) == 3]
    found = {start: commit for start, other, commit in experiments if other == name}
    if not found:
        known = ", ".join(sorted({other for _, other, _ in experiments})) or "none"
        raise UserError(
            f"{name}: no Git revision, tag or DVC experiment of this name; experiments are {known}"
        )
    head = git("rev-parse", "HEAD").strip()
    if len(found) > 1 and head not in found:
        commits = ", ".join(commit[:10] for commit in found.values())
        raise UserError(f"{name}: several experiments have this name; give a commit of {commits}")
    return found.get(head) or next(iter(found.values()))


def committed(commit: str, file: str) -> str:
    """Return the text of a file of this folder in a commit, "" if the commit lacks it."""
    with suppress(UserError):
        return git("show", f"{commit}:./{file}")
    return ""


def read_yaml(text: str, name: str) -> Any:
    """Parse YAML 1.2 as DVC does, where 1e-05 is a number; raise UserError that names `name`."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except Exception as error:  # ruamel raises nearly anything for a tag that misfits its value
        raise UserError(f"{name}: not valid YAML: {error}") from error


def parse_lock(text: str, name: str = LOCK) -> dict[str, LockedStage]:
    """Return the stages of a lock file by name; raise UserError for a damaged one."""
    try:
        values = (read_yaml(text, name) or {}).get("stages", {})
        return TypeAdapter(dict[str, LockedStage]).validate_python(values)
    except (ValueError, AttributeError) as error:
        raise UserError(f"{name}: damaged ({error}); restore it from Git or run again") from error


def outputs(stages: Mapping[str, LockedStage]) -> dict[str, LockedFile]:
    """Return the outputs of all stages by path."""
    return {out.path: out for stage in stages.values() for out in stage.outs}


def cache_path(out: LockedFile) -> Path:
    """Return where DVC's cache holds an output; raise UserError for one without a digest."""
    if out.md5 is None:
        raise UserError(f"{LOCK}: {out.path} has no md5; run its stage again")
    return cache_folder() / "files" / "md5" / out.md5[:2] / out.md5[2:]


def cached_files(out: LockedFile) -> dict[str, Path] | None:
    """Return the cached files of a folder by relative path; None if their list is not cached.

    Raise UserError for a damaged list, and for a path that leads out of the folder.
    """
    path = cache_path(out)
    try:
        files = TypeAdapter(list[ListedFile]).validate_json(path.read_bytes())
        for file in files:
            if {"/", "//", ".."} & {*PurePosixPath(file.relpath).parts} or "\0" in file.relpath:
                raise ValueError(f"{file.relpath!r} leads out of the folder")
    except OSError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: damaged list of {out.path} ({error}); `dvc fetch` it") from error
    return {file.relpath: cache_path(LockedFile(path=file.relpath, md5=file.md5)) for file in files}


def cache_folder() -> Path:
    """Return the folder of DVC's cache."""
    return _cache_folder(Path.cwd())


@cache
def _cache_folder(repository: Path) -> Path:
    return Path(dvc("cache", "dir").strip())


def run_parameters(text: str, stages: Mapping[str, LockedStage]) -> dict[str, Any]:
    """Return the parameters of a run by section: those of params.yaml (`text`), but of a stage's
    own section those that it last ran with.
    """
    values: Any = read_yaml(text, PARAMETERS)
    values = values if isinstance(values, dict) else {}
    for name, stage in stages.items():
        for key, value in stage.parameters.items():
            *sections, last = key.split(".")
            if [*sections, last][0] != name:
                continue
            section = values
            for part in sections:
                if not isinstance(section.get(part), dict):
                    section[part] = {}
                section = section[part]
            section[last] = value
    return values


def stale_outputs(stages: Mapping[str, LockedStage], parameters: Mapping[str, Any]) -> set[str]:
    """Return the outputs that were made from other inputs or parameters than those of this run.

    `dvc exp run TARGET` leaves the entries of the stages behind the target as they were.
    """
    outs = outputs(stages)
    writers = {out.path: name for name, stage in stages.items() for out in stage.outs}
    read = {name: _outputs_read(stage, outs) for name, stage in stages.items()}
    folders = {out for deps in read.values() for out, inside, _ in deps if inside}
    digests = {(out, ""): outs[out].md5 for out in outs}
    for folder in folders:
        files = cached_files(outs[folder]) or {}
        digests |= {
            (folder, name): f"{file.parent.name}{file.name}" for name, file in files.items()
        }
    stale = {
        name
        for name, stage in stages.items()
        if any(_look_up(parameters, key) != value for key, value in stage.parameters.items())
        or any(digests.get((out, inside)) not in (None, md5) for out, inside, md5 in read[name])
    }
    before: set[str] = set()
    while before != stale:  # who reads a stale output is stale
        before = set(stale)
        stale |= {name for name in stages if any(writers[out] in before for out, *_ in read[name])}
    return {path for path, name in writers.items() if name in stale}


def _outputs_read(
    stage: LockedStage, outs: Mapping[str, LockedFile]
) -> list[tuple[str, str, str | None]]:
    """Return (output, file inside it or "", digest) of the dependencies that other stages wrote."""
    return [
        (str(out), "" if out == path else str(path.relative_to(out)), dep.md5)
        for dep in stage.deps
        for path in [PurePosixPath(dep.path)]
        for out in (path, *path.parents)
        if str(out) in outs
    ]


def _look_up(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values
