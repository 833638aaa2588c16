"""Masks that this pipeline draws: PNG files in one zip, because DVC and file systems take their time for every file."""

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from pipeline.datasets.images import MAX_BYTES
from pipeline.datasets.index import RERUN
from pipeline.datasets.problems import DatasetError, error
from pipeline.work import replacing

MASKS = "masks.zip"
SEMANTIC, INSTANCES = "semantic/{}.png", "instances/{}.png"
"""Names of a picture's masks in the archive."""
READABLE = 0o644 << 16
"""Rights of a file that is taken out of the archive."""


@contextmanager
def writing_archive(path: Path) -> Iterator[Callable[[str, bytes], None]]:
    """Yield what adds a file, by name and bytes, to a zip that takes the place of `path` when the block ends well; equal files in
    equal order give equal bytes. Raises UserError where it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file, ZipFile(file, "w", ZIP_STORED) as archive:

        def add(name: str, data: bytes) -> None:
            """Add a file."""
            entry = ZipInfo(name)
            entry.external_attr = READABLE
            archive.writestr(entry, data)

        yield add


def read_archived(path: Path, name: str) -> bytes:
    """The bytes of a file in an archive; raises DatasetError that names both."""
    try:
        status = path.stat()
        archive = _opened(path, status.st_mtime_ns, status.st_size, os.getpid())
        entry = archive.getinfo(name)
        if entry.file_size > MAX_BYTES:
            raise DatasetError(error(path / name, f"is larger than {MAX_BYTES} bytes", RERUN))
        return archive.read(entry)
    except KeyError:
        raise DatasetError(error(path / name, "no such file in the archive", RERUN)) from None
    except (OSError, BadZipFile, RuntimeError, ValueError, EOFError, zlib.error) as problem:
        raise DatasetError(error(path / name, f"cannot be read ({problem})", RERUN)) from None


@lru_cache(maxsize=4)
def _opened(path: Path, changed: int, size: int, process: int) -> ZipFile:
    """An archive, opened once in a process for as long as the file stays the same: its list of files is long."""
    return ZipFile(path)
