"""What every format hands over: its images with their tags and masks as the files say, and what is
wrong with them.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from pipeline.data.images import SUFFIXES
from pipeline.data.problems import DatasetError, Problem, error, warning

FOREIGN = (".avif", ".bmp", ".gif", ".heic", ".jfif", ".jp2", ".tif", ".tiff")
MAX_NAME = 240
"""Bytes that a part of an id may have: file systems admit 255 with the suffix and `.part`."""
OUTSIDE = "lies outside the source folder (by `..` or a link)"
Render = Callable[[Mapping[str, int], tuple[int, int]], tuple[np.ndarray, np.ndarray]]
"""From class name -> label and the size (height, width) of the image to its label map uint8 [H,W]
and instance ids uint16 [H,W]. Picklable; raises ValueError for outlines that make no sense or
belong to another size.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image as its source tells it; paths are POSIX, relative to the source, `where` names the
    row or file that lists it.

    `tags` are class names, None where the source says nothing of the image; `split` None leaves the
    choice to the share `val`. Masks are files, or drawn by `render` where the source holds
    outlines.
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
    """A folder as read by one format: entries, class names in the order of mask values 1.., and
    problems found so far.
    """

    root: Path
    classes: tuple[str, ...] = ()
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def admit(self, names: Iterable[str], where: str) -> frozenset[str]:
        """The names that are classes; each of the others becomes an error that names the row or
        file.
        """
        given = frozenset(names)
        for name in sorted(given.difference(self.classes)):
            do = f"valid are {', '.join(self.classes)}"
            self.problems.append(error(where, f"{name!r} is no class", do))
        return given.intersection(self.classes)


def normalize(name: str) -> str:
    """An id as it is compared and stored: composed Unicode, since macOS lists `é` in two
    characters.
    """
    return unicodedata.normalize("NFC", name)


def without_suffix(path: str) -> str:
    """The path of an image file without its suffix."""
    return path.rpartition(".")[0] if path.lower().endswith(SUFFIXES) else path


def complain_of_id(name: str) -> str | None:
    """What is wrong with an image id (a relative POSIX path without suffix), or None."""
    if not name or name != name.strip():
        return "is empty or has blanks at its ends"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or "\\" in name:
        return "is an absolute path or holds a backslash"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "leaves the folder or has empty parts"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "holds control characters"
    if any(part.startswith(".") for part in name.split("/")):
        return "begins with a dot, as hidden files do, which are left out"
    if any(len(part.encode()) > MAX_NAME for part in name.split("/")):
        return f"has a part of more than {MAX_NAME} bytes, which no file can be named after"
    return None


def complain_of_split(name: str) -> str | None:
    """What is wrong with the name of a split, after which exports name files, or None."""
    if re.fullmatch(r"[\w-][\w.-]{0,99}", name) is None:
        return "is no word of letters, digits, `_`, `-` and `.`"
    return None


def leaves(root: Path, path: str) -> bool:
    """Whether a relative path ends up outside the folder, by `..` or by a link."""
    try:
        return not Path(os.path.realpath(root / path)).is_relative_to(os.path.realpath(root))
    except ValueError:  # a NUL character
        return True


def identify(image: str, folder: str, found: Mapping[str, str]) -> str:
    """The id of an image as a person writes it: with or without suffix, with or without the folder
    of the images.
    """
    name = normalize(image)
    for candidate in (name, name.removeprefix(f"{folder}/")):
        stem = without_suffix(candidate)
        if candidate in found:
            return candidate
        if stem in found and normalize(found[stem]) == f"{folder}/{candidate}":
            return stem
    return name


def expect_folder(root: Path, folder: str) -> None:
    """Raise DatasetError unless root/folder is a folder that does not lead out of the root."""
    if not (root / folder).is_dir():
        raise DatasetError(error(root / folder, "no such folder", "put the images there"))
    if leaves(root, folder):
        raise DatasetError(error(root / folder, OUTSIDE, "move the images into the source folder"))


def find_images(root: Path, folder: str) -> tuple[dict[str, str], list[Problem]]:
    """All image files below root/folder: id (path without suffix below folder) to path below root;
    two files of one id are an error.
    """
    expect_folder(root, folder)
    found: dict[str, str] = {}
    problems: list[Problem] = []

    def complain(problem: OSError) -> None:
        """Note a folder that cannot be listed."""
        what = f"cannot be read ({problem.strerror})"
        problems.append(error(problem.filename, what, "give yourself the right to read it"))

    for directory, folders, files in os.walk(root / folder, onerror=complain):
        here = Path(directory)
        linked = [here / name for name in sorted(folders) if (here / name).is_symlink()]
        do = "move the images into the source folder"
        problems += [
            error(link, "is a link to a folder, which is not followed", do) for link in linked
        ]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(file for file in files if not file.startswith(".")):
            path = (here / file).relative_to(root).as_posix()
            name = normalize(without_suffix(path.removeprefix(f"{folder}/")))
            if file.lower().endswith(FOREIGN):
                problems.append(
                    warning(
                        here / file, "is of a kind that is not read", "save it as JPEG, PNG or WebP"
                    )
                )
            elif not file.lower().endswith(SUFFIXES):
                continue
            elif name in found:
                do = "rename one of the two"
                problems.append(error(here / file, f"has the same id as {found[name]}", do))
            else:
                found[name] = path
    return found, problems
