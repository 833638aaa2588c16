"""The folder of unfinished work: one sub-folder per stage and fingerprint, so that only work that still fits is gone on with."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

CODE = ("pipeline", "stages")


def fingerprint(parameters: Mapping[str, Any], inputs: Iterable[Path]) -> str:
    """Hex digest of everything a stage's result follows from.

    parameters: plain values (JSON); inputs: files or folders, taken by content; the sources of the loaded modules of this project
    are included, since shards of older code must not be mixed with new ones.
    """
    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps(parameters, sort_keys=True, default=str).encode())
    for path in inputs:
        digest.update(_content(path))
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] in CODE and getattr(module, "__file__", None):
            digest.update(name.encode() + Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


def folder(root: Path, stage: str, key: str) -> Path:
    """The folder for unfinished work of `stage` with fingerprint `key`, created when missing."""
    path = root / stage / key
    path.mkdir(parents=True, exist_ok=True)
    return path


def discard(root: Path, stage: str) -> None:
    """Remove all unfinished work of `stage`, once its artefact is whole."""
    shutil.rmtree(root / stage, ignore_errors=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a kill leaves either the old file or the new one, never a part."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _content(path: Path) -> bytes:
    """Digest of a file, or of the small index files of a folder (which hold the digests of all else)."""
    digest = hashlib.blake2b(digest_size=16)
    files = sorted(p for p in path.iterdir() if p.suffix in (".json", ".csv")) if path.is_dir() else [path]
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.digest()
