"""Files of an export: written atomically, existing ones replaced only on request."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

from pipeline.core.resume import replacing, write_atomically
from pipeline.export.images import ExportError


def prepare(folder: Path, *, force: bool) -> None:
    """Create the folder of an export; raise ExportError if it is not empty, unless forced."""
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise ExportError(
            f"{folder}: is not empty; name a new folder, or add --force to replace its files"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"{folder}: cannot be created ({error.strerror}); name another folder"
        ) from error


def keep_out(folder: Path, root: Path, what: str) -> None:
    """Raise ExportError if the output folder is `root` or lies in it; `what` says what is there."""
    if folder.resolve().is_relative_to(root.resolve()):
        raise ExportError(f"-o {folder}: lies in {root}, where {what}; name another folder")


def write(path: Path, data: bytes) -> None:
    """Write a file atomically, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)


@contextmanager
def stream(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write piece by piece; it gets its name if the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        yield file


def place(source: Path, path: Path, how: Literal["none", "copy", "link"]) -> None:
    """Copy or link an image file into the export, byte for byte (with its EXIF orientation).

    A link is a hard link, or a symbolic one across file systems. Raises ExportError if the image
    file is missing.
    """
    if how == "none":
        return
    if not source.is_file():
        raise ExportError(f"{source}: no such file; put the image there, or omit --images")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        if how == "copy":
            shutil.copyfile(source, part)
        else:
            _link(source.resolve(), part)
        os.replace(part, path)
    finally:
        # os.replace does nothing, and leaves the part, if both are hard links to the same file.
        part.unlink(missing_ok=True)


def _link(source: Path, path: Path) -> None:
    with suppress(OSError):
        path.hardlink_to(source)
        return
    path.symlink_to(source)
