"""Files of an export: nothing half-written under its final name, nothing replaced unasked."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

from pipeline.core.resume import replacing, write_atomically
from pipeline.export.images import ExportError


def prepare(folder: Path, *, force: bool) -> None:
    """Make the folder of an export; raises ExportError if that fails, or if it holds something and
    `force` is not given.
    """
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise ExportError(
            f"{folder}: is not empty; name a new folder, or add --force to replace its files"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"{folder}: cannot be made a folder ({error.strerror}); name another one"
        ) from error


def keep_out(folder: Path, root: Path, what: str) -> None:
    """Raise ExportError for a folder to write to that lies in `root`, or is it; `what` is there."""
    if folder.resolve().is_relative_to(root.resolve()):
        raise ExportError(f"-o {folder}: lies in {root}, where {what}; name a folder elsewhere")


def write(path: Path, data: bytes) -> None:
    """Write a file at once and its folder before; a kill leaves no part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)


@contextmanager
def stream(path: Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece, and its folder before; a kill leaves no part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        yield file


def place(source: Path, path: Path, how: Literal["none", "copy", "link"]) -> None:
    """Put an image file into the export, byte for byte: one that a camera marked as turned stays
    so, though masks are upright.

    A link is a hard link, which every reader takes for a file of its own, or a symbolic one to
    another file system. Raises ExportError if the image file is missing.
    """
    if how == "none":
        return
    if not source.is_file():
        raise ExportError(f"{source}: no such file; put the image there, or leave --images away")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        if how == "copy":
            shutil.copyfile(source, part)
        else:
            _link(source.resolve(), part)
        os.replace(part, path)
    finally:
        # two names of one file are left as they are by os.replace, which then leaves the part too
        part.unlink(missing_ok=True)


def _link(source: Path, path: Path) -> None:
    with suppress(OSError):
        path.hardlink_to(source)
        return
    path.symlink_to(source)
