"""A small run of the whole graph to do harm to: what its stages wrote, and what they keep of
unfinished work.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from tests.support.repository import ENVIRONMENT, QUICK, ran

SETTINGS: Mapping[str, object] = QUICK | {"runtime.checkpoint": 0.2}
"""Parameters of the run: shards of three of twelve images, a checkpoint every fifth of a second."""
LIMIT = 300
"""Seconds after which a stage counts as hanging."""
GOES_ON = re.compile(r"goes on, (\d+) shards|goes on at step (\d+)")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a stage's process ended: return code (negative: the signal), what it said, and the
    seconds it took.
    """

    code: int
    said: str
    seconds: float

    @property
    def hung(self) -> bool:
        """Whether it was killed as it did not end by itself."""
        return f"hung for {LIMIT} s" in self.said

    @property
    def went_on_from(self) -> int:
        """Shards or steps that it found finished."""
        found = GOES_ON.search(self.said)
        return int(found[1] or found[2]) if found else 0


class Box:
    """A folder in which the graph has run; `right` is what its stages wrote: path -> digest of the
    bytes, by stage.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lock = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
        self._outs = {
            name: [out["path"] for out in stage.get("outs", [])] for name, stage in lock.items()
        }
        self.inputs = {
            name: [dep["path"] for dep in stage.get("deps", []) if dep["path"].startswith("data/")]
            for name, stage in lock.items()
        }
        self.right = {stage: self.wrote(stage) for stage in self._outs}
        self._spare = folder.with_name(f"{folder.name}.spare")
        shutil.copytree(folder / "data", self._spare, dirs_exist_ok=True)

    @property
    def stages(self) -> list[str]:
        """Names of the stages, in the order in which they ran."""
        return list(self._outs)

    def wrote(self, stage: str) -> dict[str, str]:
        """Digest of every file that a stage wrote, by its path; without what is missing."""
        files = [
            file
            for out in self._outs[stage]
            for file in (
                [self.folder / out]
                if (self.folder / out).is_file()
                else sorted((self.folder / out).rglob("*"))
            )
            if file.is_file()
        ]
        return {
            file.relative_to(self.folder).as_posix(): hashlib.blake2b(file.read_bytes()).hexdigest()
            for file in files
        }

    def forget(self, stage: str) -> None:
        """Remove what a stage wrote and what it has begun."""
        for out in self._outs[stage]:
            path = self.folder / out
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.rmtree(self.work(stage), ignore_errors=True)

    def restore(self) -> None:
        """Put everything back as it was."""
        shutil.rmtree(self.folder / ".work", ignore_errors=True)
        for file in sorted((self.folder / "data").rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
        shutil.copytree(self._spare, self.folder / "data", dirs_exist_ok=True)

    def work(self, stage: str) -> Path:
        """The folder of a stage's unfinished work."""
        return self.folder / ".work" / stage.partition("@")[0]

    def size(self, stage: str) -> int:
        """Bytes that a stage wrote."""
        return sum((self.folder / path).stat().st_size for path in self.right[stage])

    def kept(self, stage: str) -> tuple[int, float]:
        """Whole shards, or steps in the checkpoint, of unfinished work, and when the last of it was
        written (0: never).
        """
        shards = list(self.work(stage).rglob("shard-*.h5"))
        checkpoints = list(self.work(stage).rglob("checkpoint.pt"))
        last = max((path.stat().st_mtime for path in [*shards, *checkpoints]), default=0.0)
        if checkpoints:
            return int(torch.load(checkpoints[0], weights_only=True)["step"]), last
        return len(shards), last

    def command(self, stage: str) -> list[str]:
        """Module and arguments of a stage."""
        name, _, argument = stage.partition("@")
        return [f"stages.{name}", *([argument] if argument else [])]

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start Python with these arguments here."""
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env=ENVIRONMENT | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait(self, process: subprocess.Popen[str], began: float) -> Ended:
        """Wait for a process; one that hangs is killed and reported as such."""
        try:
            _, said = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
            said += f"\nhung for {LIMIT} s"
        return Ended(process.returncode, said, time.time() - began)

    def run(self, stage: str, before: Sequence[str] = ("-m",), **environment: str) -> Ended:
        """Run a stage to its end; before: what stands between Python and the stage's module."""
        began = time.time()
        return self.wait(self.start(*before, *self.command(stage), **environment), began)


def make(folder: Path) -> Box:
    """A copy of this repository in which the graph has run with SETTINGS."""
    ran(folder, SETTINGS)
    return Box(folder)


def alive(group: int) -> bool:
    """Whether a process of a session is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
