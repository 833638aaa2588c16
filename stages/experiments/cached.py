"""What Git revisions and DVC experiments wrote, where DVC's cache holds it; nothing is checked out.

https://dvc.org/doc/user-guide/project-structure/internal-files#structure-of-the-cache-directory
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import UserError
from stages.experiments.repository import LOCK, ExperimentError, dvc, git, read_yaml

EXPERIMENTS = "refs/exps"
DIGEST = re.compile(r"[0-9a-f]{3,}(\.dir)?")
Out = Mapping[str, Any]
"""An output as a lock file lists it: `path`, `md5`, and more."""


def find_commit(name: str) -> str:
    """The commit of a revision, tag, or DVC experiment (one that starts from HEAD first); raises
    UserError.
    """
    with suppress(ExperimentError):
        return git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        ).strip()
    refs = []
    with suppress(ExperimentError):
        lines = git("for-each-ref", EXPERIMENTS, "--format=%(refname) %(objectname)").splitlines()
        refs = [tuple(line.split(" ")) for line in lines]
    found = {ref: commit for ref, commit in refs if ref.rpartition("/")[2] == name}
    if not found:
        known = ", ".join(
            sorted({ref.rpartition("/")[2] for ref, _ in refs if len(ref.split("/")) == 5})
        )
        there = (
            f"experiments are {known}"
            if known
            else "there are no experiments, see `dvc exp list -A`"
        )
        raise UserError(f"{name}: no Git revision, tag or DVC experiment of this name; {there}")
    head = git("rev-parse", "HEAD").strip()
    prefix = f"{EXPERIMENTS}/{head[:2]}/{head[2:]}/"
    here = [commit for ref, commit in found.items() if ref.startswith(prefix)]
    if here or len(found) == 1:
        return (here or list(found.values()))[0]
    commits = ", ".join(commit[:10] for commit in found.values())
    raise UserError(
        f"{name}: several commits have an experiment of this name; give one of {commits}"
    )


def lock_of(name: str, commit: str) -> str:
    """The text of a commit's lock file; raises UserError if it has none. name: what the commit is
    called in the message.
    """
    text = committed(commit, LOCK)
    if not text:
        raise UserError(
            f"{name}: commit {commit[:10]} holds no {LOCK}, so it is not known what its run wrote; "
            "commit dvc.lock with your runs, or name an experiment of `dvc exp list`"
        )
    return text


def committed(commit: str, file: str) -> str:
    """A file of this folder in a commit, empty if it has none."""
    try:
        return git("show", f"{commit}:./{file}")
    except ExperimentError:
        return ""


@lru_cache(maxsize=8)
def stages_of(lock: str) -> Mapping[str, Any]:
    """The stages of a lock file's text; those that are damaged are left out, all of one that is
    empty or no YAML.

    Kept, not to be changed: parsing takes a fifth of a second, and outputs, parameters and lineage
    are each asked of the same text.
    """
    stages = mapping_of(lock).get("stages")
    if not isinstance(stages, dict):
        return {}
    return {
        name: stage for name, stage in stages.items() if isinstance(name, str) and _is_sound(stage)
    }


def _is_sound(stage: Any) -> bool:
    """Whether the entry of a stage holds files and parameters as DVC writes them."""
    if not isinstance(stage, dict):
        return False
    files = [stage.get(key, []) for key in ("deps", "outs")]
    params = stage.get("params", {})
    return (
        all(isinstance(rows, list) and all(map(_is_file, rows)) for rows in files)
        and isinstance(params, dict)
        and all(
            isinstance(one, dict) and all(isinstance(key, str) for key in one)
            for one in params.values()
        )
    )


def _is_file(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("path"), str)
        and isinstance(row.get("md5", ""), str)
    )


def outs_of(lock: str) -> dict[str, Out]:
    """The outputs of a lock file's text by path."""
    return {out["path"]: out for stage in stages_of(lock).values() for out in stage.get("outs", [])}


def mapping_of(text: str) -> dict[str, Any]:
    """A YAML mapping; an empty one for anything else."""
    try:
        values = read_yaml(text, "YAML")
    except ExperimentError:
        return {}
    return values if isinstance(values, dict) else {}


def cached(out: Out) -> Path:
    """Where DVC's cache holds an output; those of DVC before 3.0 name no hash and lie one level
    higher.

    Raises UserError for what is no digest, which could lead out of the cache.
    """
    if not isinstance(out.get("md5"), str) or not DIGEST.fullmatch(out["md5"]):
        raise UserError(
            f"{LOCK}: {out.get('path')!r} has no sound md5; run again, or take another revision"
        )
    top = cache_folder() / "files" / "md5" if "hash" in out else cache_folder()
    return top / out["md5"][:2] / out["md5"][2:]


def folder(out: Out) -> dict[str, Path] | None:
    """The files of a cached folder by relative path, which never leads out of it; None if its list
    is not in the cache.

    Raises UserError for a list that is damaged.
    """
    file = cached(out)
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        paths = [PurePosixPath(entry["relpath"]) for entry in entries]
    except OSError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(
            f"{file}: no list of a folder's files ({error}); `dvc fetch` it again"
        ) from error
    return {
        entry["relpath"]: cached({**out, "md5": entry.get("md5")})
        for entry, path in zip(entries, paths, strict=True)
        if not {"/", "//", ".."} & {*path.parts} and "\0" not in entry["relpath"]
    }


def digest_in(out: Out, path: PurePosixPath) -> str | None:
    """The digest of what an output, or a file in it, holds; None if the list of its files is not in
    the cache, or lacks that one.

    Raises UserError for a list that is damaged.
    """
    inside = path.relative_to(out["path"])
    if not inside.parts:
        return out.get("md5")
    file = (folder(out) or {}).get(str(inside))
    return None if file is None else file.parent.name + file.name


def cache_folder() -> Path:
    """The folder of DVC's cache."""
    return _asked(Path.cwd())


@cache
def _asked(repository: Path) -> Path:
    """What DVC says in this repository, where the command runs."""
    return Path(dvc("cache", "dir").strip())


def lost(path: str, name: str, file: Path) -> str:
    """Say that a file of the cache, an output `path` of run `name`, is not there, and how to get
    it.
    """
    return (
        f"{path} of {name} is not in DVC's cache ({file}); `dvc fetch --all-commits` gets what was pushed "
        f"(of an experiment, `dvc exp pull REMOTE {name}`), else run it again"
    )
