"""Unfinished work, in one folder per stage and fingerprint of all that its result depends on, and
files that are written whole or not at all.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import UserError

CODE = ("pipeline", "stages")

ABANDONED = 24 * 3600
"""Seconds after which unfinished work counts as abandoned."""

_taken: set[Path] = set()
"""The folders that this process works in."""


def fingerprint(parameters: Mapping[str, Any], inputs: Iterable[Path]) -> str:
    """Return a hex digest of everything that the result of a stage depends on.

    The sources of the loaded modules of this project are included: work of older code must not be
    mixed with new work. (DVC tracks the code by folders, to decide which stages run.)

    Args:
        parameters: plain values (JSON).
        inputs: files, and folders with an index, whose content counts.
    """
    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps(parameters, sort_keys=True, default=str).encode())
    for path in inputs:
        digest.update(_content(path))
    for name, file in sorted(_sources()):
        digest.update(name.encode() + file.read_bytes())
    return digest.hexdigest()


def _sources() -> set[tuple[str, Path]]:
    """Return (name, file) of the loaded modules of this project, `__main__` under its own name."""
    modules = (
        (getattr(getattr(module, "__spec__", None), "name", name), module)
        for name, module in tuple(sys.modules.items())
    )
    files = ((name, getattr(module, "__file__", None)) for name, module in modules)
    return {(name, Path(file)) for name, file in files if file and name.partition(".")[0] in CODE}


def folder(root: Path, stage: str, key: str) -> Path:
    """Return the folder for unfinished work of `stage` with fingerprint `key`; create it."""
    path = root / stage / key
    path.mkdir(parents=True, exist_ok=True)
    _taken.add(path)
    return path


def cleanup(root: Path, stage: str) -> None:
    """Remove what this process kept of `stage`, once its artifact is written, and abandoned work.

    The rest may belong to an experiment that runs at the same time.
    """
    for path in (root / stage).glob("*/"):
        if path in _taken or time.time() - path.stat().st_mtime > ABANDONED:
            shutil.rmtree(path, ignore_errors=True)
            _taken.discard(path)
    with suppress(OSError):
        (root / stage).rmdir()


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` such that an interruption leaves the old file or the new one."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that replaces `path` when the block succeeds, and is removed otherwise; its
    folder is created.

    Raises:
        UserError: the file cannot be written.
    """
    # always under the same name, so that what a killed process left is overwritten
    part = path.with_name(f"{path.name}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise UserError if the block cannot write `path`: disk full, quota, no permission.

    Errors of other files, which the block reads, pass.
    """
    try:
        yield
    except OSError as error:
        named = Path(error.filename) if isinstance(error.filename, str) else path
        if not named.name.startswith(path.name) and named not in path.parents:
            raise
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(
            f"{path}: cannot be written ({reason}); fix this and run again, finished work is kept"
        ) from error


def _content(path: Path) -> bytes:
    """Return the digest of a file, or of the index of a folder, which holds digests of the rest."""
    digest = hashlib.blake2b(digest_size=16)
    files = (
        sorted(p for p in path.iterdir() if p.suffix in (".json", ".csv"))
        if path.is_dir()
        else [path]
    )
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.digest()
