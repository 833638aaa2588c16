"""What every reader returns: images with the tags and masks of the source, and its problems."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from pipeline.data.images import SUFFIXES, DatasetError, Problem, error, warning

FOREIGN = (".avif", ".bmp", ".gif", ".heic", ".jfif", ".jp2", ".tif", ".tiff")
MAX_NAME = 240
"""Bytes of a part of an id: file systems allow 255, including the suffix and `.part`."""
OUTSIDE = "lies outside the source folder (through `..` or a link)"
DO_MOVE = "move the images into the source folder"
DO_COPY = "copy it into the folder or use a hard link"
Render = Callable[[Mapping[str, int], tuple[int, int]], tuple[np.ndarray, np.ndarray]]
"""(class name -> label, image size (H, W)) -> label map uint8 [H,W], instance ids uint16 [H,W].

Picklable; raises ValueError for outlines that are invalid or belong to an image of another size.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image as its source describes it.

    id: path of the image below its folder, without suffix. path, semantic, instances: image and
    mask files, POSIX, relative to the source. where: the row or file that lists the image. tags:
    class names, None if the source has none for the image. split: None leaves it to the fraction
    `val`. render: renders the masks if the source has outlines instead of mask files.
    """

    id: str
    path: str
    where: str
    tags: frozenset[str] | None = None
    split: str | None = None
    semantic: str | None = None
    instances: str | None = None
    render: Render | None = None


@dataclass(slots=True)
class Source:
    """A folder as one reader found it; mask values 1.. follow the order of `classes`."""

    root: Path
    classes: tuple[str, ...] = ()
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def known_classes(self, names: Iterable[str], where: str) -> frozenset[str]:
        """Return the names that are classes; report each other one as an error at `where`."""
        unique = frozenset(names)
        for name in sorted(unique.difference(self.classes)):
            do = f"the classes are {', '.join(self.classes)}"
            self.problems.append(error(where, f"{name!r} is not a class", do))
        return unique.intersection(self.classes)


def normalize(name: str) -> str:
    """Return an id in composed Unicode, as macOS lists `é` as two characters."""
    return unicodedata.normalize("NFC", name)


def without_suffix(path: str) -> str:
    """Return the path of an image file without its suffix."""
    return path.rpartition(".")[0] if path.lower().endswith(SUFFIXES) else path


def problem_of_id(name: str) -> str | None:
    """Return what is wrong with an image id (relative POSIX path without suffix), or None."""
    parts = name.split("/")
    if not name or name != name.strip():
        return "is empty or has blanks at its ends"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or "\\" in name:
        return "is an absolute path or has a backslash"
    if any(part in ("", ".", "..") for part in parts):
        return "leaves the folder or has empty parts"
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
        return "has control characters"
    if any(part.startswith(".") for part in parts):
        return "starts with a dot, and hidden files are skipped"
    if any(len(part.encode()) > MAX_NAME for part in parts):
        return f"has a part of more than {MAX_NAME} bytes, too long for a file name"
    return None


def problem_of_split(name: str) -> str | None:
    """Return what is wrong with the name of a split, from which file names are made, or None."""
    if re.fullmatch(r"[\w-][\w.-]{0,99}", name) is None:
        return "is not a word of letters, digits, `_`, `-` and `.`"
    return None


def leaves(root: Path, path: str) -> bool:
    """Return whether a relative path ends up outside the folder, through `..` or a link."""
    try:
        return not Path(os.path.realpath(root / path)).is_relative_to(os.path.realpath(root))
    except ValueError:  # a NUL character
        return True


def find_id(image: str, folder: str, found: Mapping[str, str]) -> str:
    """Return the id of an image named with or without suffix and image folder.

    found: id -> path, as find_images returns it for the `folder`.
    """
    name = normalize(image)
    for candidate in (name, name.removeprefix(f"{folder}/")):
        stem = without_suffix(candidate)
        if candidate in found:
            return candidate
        if stem in found and normalize(found[stem]) == f"{folder}/{candidate}":
            return stem
    return name


def require_folder(root: Path, folder: str) -> None:
    """Raise DatasetError unless root/folder is a folder inside the root."""
    if not (root / folder).is_dir():
        raise DatasetError(error(root / folder, "no such folder", "put the images there"))
    if leaves(root, folder):
        raise DatasetError(error(root / folder, OUTSIDE, DO_MOVE))


def find_images(root: Path, folder: str) -> tuple[dict[str, str], list[Problem]]:
    """Find all image files below root/folder.

    Returns:
        id (path below the folder, without suffix) -> path below the root, and the problems: equal
        ids, linked and unreadable folders, unsupported formats.

    Raises:
        DatasetError: root/folder is not a folder inside the root.
    """
    require_folder(root, folder)
    found: dict[str, str] = {}
    problems: list[Problem] = []

    def unreadable(problem: OSError) -> None:
        """Report a folder that cannot be listed."""
        what = f"cannot be read ({problem.strerror})"
        problems.append(error(problem.filename, what, "change its permissions"))

    for directory, folders, files in os.walk(root / folder, onerror=unreadable):
        here = Path(directory)
        for name in sorted(folders):
            if (here / name).is_symlink():
                what = "is a link to a folder, which is not followed"
                problems.append(error(here / name, what, DO_MOVE))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(file for file in files if not file.startswith(".")):
            path = (here / file).relative_to(root).as_posix()
            name = normalize(without_suffix(path.removeprefix(f"{folder}/")))
            if file.lower().endswith(FOREIGN):
                do = "save it as JPEG, PNG or WebP"
                problems.append(warning(here / file, "has an unsupported format", do))
            elif not file.lower().endswith(SUFFIXES):
                continue
            elif name in found:
                do = "rename one of the two"
                problems.append(error(here / file, f"has the same id as {found[name]}", do))
            else:
                found[name] = path
    return found, problems
