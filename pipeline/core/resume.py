"""The folder of unfinished work: one sub-folder per stage and fingerprint, so that only work that
still fits is gone on with.
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
"""Seconds after which a folder of unfinished work counts as given up."""

_taken: set[Path] = set()
"""The folders that this process works in."""


def fingerprint(parameters: Mapping[str, Any], inputs: Iterable[Path]) -> str:
    """Hex digest of everything a stage's result follows from.

    parameters: plain values (JSON); inputs: files or folders, taken by content; the sources of the
    loaded modules of this project are included, since shards of older code must not be mixed with
    new ones.
    """
    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps(parameters, sort_keys=True, default=str).encode())
    for path in inputs:
        digest.update(_content(path))
    for name, file in sorted(_sources()):
        digest.update(name.encode() + file.read_bytes())
    return digest.hexdigest()


def _sources() -> set[tuple[str, Path]]:
    """(name, file) of the loaded modules of this project; the stage started as `__main__` goes by
    its own name.
    """
    modules = (
        (getattr(getattr(module, "__spec__", None), "name", name), module)
        for name, module in tuple(sys.modules.items())
    )
    files = ((name, getattr(module, "__file__", None)) for name, module in modules)
    return {(name, Path(file)) for name, file in files if file and name.partition(".")[0] in CODE}


def folder(root: Path, stage: str, key: str) -> Path:
    """The folder for unfinished work of `stage` with fingerprint `key`, created when missing."""
    path = root / stage / key
    path.mkdir(parents=True, exist_ok=True)
    _taken.add(path)
    return path


def cleanup(root: Path, stage: str) -> None:
    """Remove what this process took up of `stage`, once its artifact is whole, and what nobody has
    touched for a day.

    The rest may belong to an experiment that runs at the same time.
    """
    for path in (root / stage).glob("*/"):
        if path in _taken or time.time() - path.stat().st_mtime > ABANDONED:
            shutil.rmtree(path, ignore_errors=True)
            _taken.discard(path)
    with suppress(OSError):
        (root / stage).rmdir()


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a kill leaves either the old file or the new one, never a
    part.
    """
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece that takes the place of `path` when the block ends well, and
    is removed otherwise.

    Raises UserError where it cannot be written.
    """
    # of one name for all, so that what a killed process left is written over
    part = path.with_name(f"{path.name}.part")
    try:
        with writing(path):
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise UserError that names `path` where the system cannot write it: a full disk, a quota, a
    missing right.

    Errors of other files, read meanwhile, pass.
    """
    try:
        yield
    except OSError as error:
        named = Path(error.filename) if isinstance(error.filename, str) else path
        if not named.name.startswith(path.name) and named not in path.parents:
            raise
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(
            f"{path}: cannot be written ({reason}); mend that and run again, finished work is kept"
        ) from error


def _content(path: Path) -> bytes:
    """Digest of a file, or of the small index files of a folder (which hold the digests of all
    else).
    """
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
