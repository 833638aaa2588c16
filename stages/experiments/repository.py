"""Git and DVC by their commands, in the repository that this is run in."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from ruamel.yaml import YAML

from pipeline.errors import UserError

PARAMETERS = "params.yaml"
LOCK = "dvc.lock"
TRIES = 30
"""Times a DVC command is tried again where another one is in its way."""
HELD = re.compile(r"acquire lock|is busy")
"""How DVC ends where another command holds the repository's lock."""
HALF_READ = re.compile(r"unexpected error")
"""How DVC ends, too, when it looks at a file that its workers are just writing."""
LOOKS = (("queue", "status"), ("queue", "logs"), ("exp", "show"), ("exp", "list"))
"""Commands that change nothing, so that they may be given again after any end."""


class ExperimentError(UserError):
    """Git or DVC refuses; the message holds its own words."""


def check_repository() -> None:
    """Raise ExperimentError unless this folder is a DVC repository in Git with at least one commit."""
    if not Path("dvc.yaml").is_file():
        raise ExperimentError("dvc.yaml: no such file here; run this in the repository's folder")
    try:
        git("rev-parse", "--verify", "HEAD")
    except ExperimentError as error:
        raise ExperimentError(
            "experiments are kept in Git and need one commit at least: git init && git add -A && git commit -m start"
        ) from error
    if not Path(".dvc").is_dir():
        raise ExperimentError(".dvc: no such folder; `dvc init` makes it")


def uncommitted() -> tuple[list[str], list[str]]:
    """(changed files, which DVC takes along into an experiment; files unknown to Git, which it
    leaves behind).
    """
    lines = git("status", "--porcelain", "--untracked-files=all").splitlines()
    return [line[3:] for line in lines if line[:2] != "??"], [
        line[3:] for line in lines if line[:2] == "??"
    ]


def left_behind(parameters: Mapping[str, Any]) -> list[str]:
    """Files and folders named by parameters that Git ignores and DVC does not track.

    Experiments run in a fresh checkout, into which DVC copies them if told to. Raises
    ExperimentError for those that Git does not ignore: DVC would commit the copies.
    """
    paths = [value for value in _files(parameters) if value and not Path(value).is_absolute()]
    here = [
        path
        for path in dict.fromkeys(paths)
        if Path(path).exists() and not Path(f"{path}.dvc").exists()
    ]
    inside = [path for path in here if Path(path).resolve().is_relative_to(Path.cwd())]
    unknown = [path for path in inside if not git("ls-files", "--", path)]
    open_ = (
        git("ls-files", "--others", "--exclude-per-directory=.gitignore", "--", *unknown)
        if unknown
        else ""
    )
    for path in unknown:
        if any(Path(file).is_relative_to(path) for file in open_.splitlines()):
            raise ExperimentError(
                f"{path}: neither Git nor DVC knows it, so it would not be in an experiment's copy of the repository; "
                f"`dvc add {path}`, add it to .gitignore, or give its absolute path"
            )
    return unknown


def _files(parameters: Any) -> Iterator[str]:
    """The values that name files: sources of images, and weights."""
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            yield from _files(value)
        elif key in ("source", "weights", "checkpoint") and isinstance(value, str):
            yield value


def read_yaml(text: str, name: str) -> Any:
    """YAML as DVC reads it (version 1.2); `name` is for the message. Raises ExperimentError."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except Exception as error:  # a tag that does not fit its value may raise anything
        raise ExperimentError(f"{name}: not valid YAML: {error}") from error


def git(*arguments: str) -> str:
    """What a Git command prints. Raises ExperimentError."""
    return _output("git", *arguments)


def dvc(*arguments: str, work: Path | None = None) -> str:
    """What a DVC command prints; work: folder of unfinished work that experiments started by it
    share. Raises ExperimentError.
    """
    binaries = Path(sys.executable).parent  # the workers look `dvc` and `python` up by name
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"}
    if work is not None:
        environment.setdefault("WEAKMASK_WORK", str(work.resolve()))
    passing = [HELD, HALF_READ] if arguments[:2] in LOOKS else [HELD]
    for _ in range(TRIES):
        try:
            return _output(sys.executable, "-m", "dvc", *arguments, environment=environment)
        except ExperimentError as error:
            if not any(pattern.search(str(error)) for pattern in passing):
                raise
            time.sleep(1)
    return _output(sys.executable, "-m", "dvc", *arguments, environment=environment)


def _output(*command: str, environment: Mapping[str, str] | None = None) -> str:
    """Run to the end, in a process group of its own, where Ctrl-C in the terminal does not reach
    it.

    The output goes through files: DVC's workers keep the command's own open, so that a pipe would
    end only with them.
    """
    with (
        TemporaryFile("w+", errors="replace") as out,
        TemporaryFile("w+", errors="replace") as error,
        _deferred_interrupt(),
    ):
        done = subprocess.run(
            command, env=environment, stdout=out, stderr=error, check=False, start_new_session=True
        )
        said, complaint = (_read(file) for file in (out, error))
    if done.returncode:
        shown = " ".join(command[2:] if command[1:2] == ("-m",) else command)
        raise ExperimentError(
            f"`{shown}` failed: {(complaint or said).strip().removeprefix('ERROR: ')}"
        )
    return said


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


@contextmanager
def _deferred_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back: while DVC queues, it puts the changes of the working tree aside for a
    second, and must bring them back.
    """
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught and before is not signal.SIG_IGN:
        raise KeyboardInterrupt
