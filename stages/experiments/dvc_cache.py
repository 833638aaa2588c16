"""Outputs of a Git revision or DVC experiment in DVC's cache, found through DVC's own file system.

The revision's lock file lists per stage what it read (`deps`, `params`) and wrote (`outs`).

https://dvc.org/doc/api-reference/dvcfilesystem
https://dvc.org/doc/user-guide/project-structure/dvcyaml-files#dvclock-file
"""

import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.errors import UserError

PARAMETERS, LOCK = "params.yaml", "dvc.lock"
Stages = Mapping[str, Mapping[str, Any]]
"""What each stage read and wrote, by its name, as in the lock file."""


class CachedRun:
    """A run of a Git revision, tag or DVC experiment, whose outputs DVC's cache holds.

    Attributes:
        outs: outputs that it wrote.
        stages: what each stage read and wrote.
        parameters: by section, as the run was made with them.
        stale: outputs that another run made.

    Raises:
        UserError: the name is unknown, or the revision holds no run.
    """

    def __init__(self, name: str) -> None:
        from dvc.api import DVCFileSystem  # takes a while to import
        from dvc.exceptions import DvcException

        self.name, self._files = name, DVCFileSystem(rev=name)
        try:
            text = self._text(LOCK)
            self.outs = {out.def_path for out in self._files.repo.index.outs if out.hash_info}
        except DvcException as error:
            raise UserError(
                f"{name}: {error}; name a Git revision, a tag or an experiment of `dvc exp list`"
            ) from error
        if not text:
            raise UserError(
                f"{name}: has no {LOCK}, so its outputs are unknown; commit {LOCK} with your runs, "
                "or name an experiment of `dvc exp list`"
            )
        self.stages = locked_stages(text, f"{name}:")
        self.parameters = run_parameters(self._text(PARAMETERS), self.stages, f"{name}:")
        self.stale = self._stale_outputs()

    def _text(self, path: str) -> str:
        """Return the text of a committed file, "" if there is none."""
        with suppress(FileNotFoundError):
            return self._files.read_text(path, encoding="utf-8")
        return ""

    def file(self, path: str) -> Path:
        """Return the cached file of an output, or of a file in one that is a folder.

        Raises:
            UserError: the run did not write it, another run did, or it is not in the cache.
        """
        digest = self._digest(path)
        if digest is None:
            raise UserError(f"{self.name}: its run wrote no {path}; run the stage there")
        if is_in(path, self.stale):
            raise UserError(
                f"{self.name}: its {path} comes from another run; run the experiment without "
                "targets to update it"
            )
        file = Path(self._files.repo.cache.local.oid_to_path(digest))
        if not file.is_file():
            raise self._not_cached(path)
        return file

    def files(self, path: str) -> list[str]:
        """Return the paths of all files in an output that is a folder; raise UserError."""
        self.file(path)
        return sorted(self._files.find(path))

    def _digest(self, path: str) -> str | None:
        """Return the MD5 of an output or of a file in it, None if the run wrote none."""
        from dvc_data.index import DataIndexDirError

        try:
            return self._files.info(path).get("md5")
        except FileNotFoundError:
            return None
        except DataIndexDirError as error:
            raise self._not_cached(path) from error

    def _not_cached(self, path: str) -> UserError:
        return UserError(
            f"{path} of {self.name} is not in DVC's cache; `dvc fetch --all-commits` downloads "
            f"what was pushed (`dvc exp pull REMOTE {self.name}` for an experiment), else run it "
            "again"
        )

    def _stale_outputs(self) -> set[str]:
        """Return the outputs that were made from other inputs or parameters than those of this run.

        `dvc exp run TARGET` leaves the entries of the stages behind the target as they were.
        """
        fresh, outs = list(self.stages.values()), set[str]()
        while stale := [stage for stage in fresh if self._is_stale(stage, outs)]:
            fresh = [stage for stage in fresh if stage not in stale]
            outs |= {out["path"] for stage in stale for out in stage["outs"]}
        return outs

    def _is_stale(self, stage: Mapping[str, Any], outs: set[str]) -> bool:
        """Return whether a stage ran with other parameters or inputs, or reads stale `outs`."""
        for key, value in stage.get("params", {}).get(PARAMETERS, {}).items():
            found: Any = self.parameters
            for part in key.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
            if found != value:
                return True
        for dep in stage.get("deps", ()):
            if is_in(dep["path"], outs):
                return True
            with suppress(UserError):  # the list of a folder may not be cached
                if self._digest(dep["path"]) not in (None, dep.get("md5")):
                    return True
        return False


def is_tracked(folder: Path) -> bool:
    """Return whether Git or DVC tracks what is in a folder, True outside of any repository."""
    listed = subprocess.run(["git", "ls-files", "--", str(folder)], capture_output=True)
    return bool(listed.returncode or listed.stdout) or Path(f"{folder}.dvc").is_file()


def is_in(path: str, outs: set[str]) -> bool:
    """Return whether a path is one of some outputs, or is in one of them."""
    return any(f"{path}/".startswith(f"{out}/") for out in outs)


def locked_stages(text: str, where: str = "") -> Stages:
    """Return the stages of a lock file by name; raise UserError that begins with `where`."""
    return _yaml(text, f"{where}{LOCK}").get("stages", {})


def run_parameters(text: str, stages: Stages, where: str = "") -> dict[str, Any]:
    """Return the parameters of a run by section: those of params.yaml (`text`), but of a stage's
    own section those that it last ran with, and without section runtime, on which no result
    depends. Raise UserError that begins with `where`.
    """
    values = _yaml(text, f"{where}{PARAMETERS}")
    values.pop("runtime", None)
    for name, stage in stages.items():
        for key, value in stage.get("params", {}).get(PARAMETERS, {}).items():
            *sections, last = key.split(".")
            if [*sections, last][0] == name:
                section = values
                for part in sections:
                    section = section.setdefault(part, {})
                section[last] = value
    return values


def _yaml(text: str, where: str) -> Any:
    """Parse YAML 1.2 as DVC does, where 1e-05 is a number."""
    try:
        found = YAML(typ="safe", pure=True).load(text)
    except Exception as error:  # ruamel raises nearly anything for a tag that misfits its value
        raise UserError(f"{where}: not valid YAML: {error}") from error
    return found if isinstance(found, dict) else {}
