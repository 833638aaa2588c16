"""What every reader returns: images with the tags and masks of the source, and its problems."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Generic, TypeVar

import numpy as np

from pipeline.core.artifacts import IGNORE
from pipeline.data.images import SUFFIXES, DatasetError, Problem, error, warning

FOREIGN = (".avif", ".bmp", ".gif", ".heic", ".jp2", ".tif", ".tiff")
MAX_NAME = 240
"""Bytes of a part of an id: file systems allow 255, including the suffix and `.part`."""
HINTS = "hints"
"""Folder of a source that holds no images but hints (see pipeline.readers.hints)."""
OUTSIDE = "lies outside the source folder (through `..` or a link)"
DO_MOVE = "move the images into the source folder"
DO_COPY = "copy it into the folder or use a hard link"
BACKGROUND_NAMES = frozenset({"background", "bg", "n/a", "nan", "none", "null"})
IGNORE_NAMES = frozenset({"ignore", "ignored", "void", "unlabeled", "unlabelled"})
SPLITS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
SPLITS |= {split: split for split in ("train", "val", "test")}
"""Usual names of the splits."""
UNKNOWN, ABSENT = "?", "-"
"""Marks of a tag: perhaps in the image, surely not in it; alone, of all classes without a tag."""
Named = TypeVar("Named")
Colors = Mapping[tuple[int, int, int], int]
"""Color -> value of a mask file."""
Render = Callable[[Mapping[str, int], tuple[int, int]], tuple[np.ndarray, np.ndarray]]
"""(class name -> label, image size (H, W)) -> label map uint8 [H,W], instance ids uint16 [H,W].

Picklable; raises ValueError for outlines that are invalid or belong to an image of another size.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image as its source describes it.

    id: path of the image below its folder, without suffix. path, semantic, instances: image and
    mask files, POSIX, relative to the source. where: the row or file that lists the image. tags:
    class names, perhaps marked, None if the source has none for the image. split: None leaves it to
    the fraction `val`. render: renders the masks if the source has outlines instead of mask files.
    colors: of mask files that have colors instead of class numbers.
    """

    id: str
    path: str
    where: str
    tags: frozenset[str] | None = None
    split: str | None = None
    semantic: str | None = None
    instances: str | None = None
    render: Render | None = None
    colors: Colors | None = None


@dataclass(slots=True)
class Source:
    """A folder as one reader found it.

    classes: names by mask value, which may include names for background and ignore (see no_class);
    tags_of_masks: whether images without tags get the classes of their masks.
    """

    root: Path
    names: Mapping[int, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    tags_of_masks: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their mask values."""
        return tuple(name for name in self.names.values() if no_class(name) is None)

    @property
    def renders(self) -> bool:
        """Whether masks are made of outlines or colors, with labels as their values."""
        return any(entry.render or entry.colors for entry in self.entries)

    def known_classes(self, names: Iterable[str], where: str) -> frozenset[str]:
        """Return the tags of classes, marks kept, and marks alone; report others at `where`."""
        tags: dict[str, str] = {}
        for tag in sorted(names):
            name, mark = unmark(tag, self.classes)
            if no_class(name) is not None:
                continue
            if name not in self.classes and (name or not mark):
                do = f"the classes are {', '.join(self.classes)}"
                self.problems.append(error(where, f"{name!r} is not a class", do))
            elif tags.setdefault(name, mark + name) != mark + name:
                what = f"contradicts itself: {tags[name]!r} and {mark + name!r}"
                self.problems.append(error(where, what, "keep one of the two"))
        return frozenset(tags.values())

    def separate_ids(self) -> None:
        """Put the folder into the ids of images of equal name, as in train/ and val/."""
        paths: dict[str, set[str]] = {}
        for entry in self.entries:
            paths.setdefault(entry.id, set()).add(entry.path)
        self.entries = [
            replace(entry, id=normalize(without_suffix(entry.path)))
            if len(paths[entry.id]) > 1
            else entry
            for entry in self.entries
        ]


def no_class(name: str) -> int | None:
    """Return the label, 0 or IGNORE, that a name such as `__background__` stands for, or None."""
    bare = name.strip().strip("_").casefold()
    return 0 if bare in BACKGROUND_NAMES else IGNORE if bare in IGNORE_NAMES else None


def unmark(tag: str, known: Collection[str]) -> tuple[str, str]:
    """Return the class name of a tag, and its mark UNKNOWN or ABSENT, empty for a class that is
    present; a known name keeps its first character.
    """
    if tag in known or not tag.startswith((UNKNOWN, ABSENT)):
        return tag, ""
    return tag[1:].strip(), tag[0]


def number(names: Sequence[str]) -> dict[int, str]:
    """Return the names of a list of classes by mask value, 1, 2 and so on.

    A background at the head of the list is 0. Names for pixels to ignore before it count for
    nothing: labelme's lists begin with `__ignore__`, -1, and `_background_`.
    """
    first = next((k for k, name in enumerate(names) if no_class(name) != IGNORE), len(names))
    first += first < len(names) and no_class(names[first]) == 0
    return dict(enumerate(names[first:], start=1))


def normalize(name: str) -> str:
    """Return an id in composed Unicode, as macOS lists `é` as two characters."""
    return unicodedata.normalize("NFC", name)


def normalize_split(name: str) -> str:
    """Return `train` or `val` for their usual names, any other name as it is."""
    return SPLITS.get(name.casefold(), name)


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


def require_folder(root: Path, folder: str) -> None:
    """Raise DatasetError unless root/folder is a folder inside the root."""
    if not (root / folder).is_dir():
        raise DatasetError(error(root / folder, "no such folder", "put the images there"))
    if leaves(root, folder):
        raise DatasetError(error(root / folder, OUTSIDE, DO_MOVE))


class Names(Generic[Named]):
    """A lookup by name, whatever the Unicode normalization, case and suffix of the name.

    A disk or an archive may change all three. Where two known names differ only in case, case
    counts.

    Args:
        known: name -> what it stands for.
        suffixes: ignored like those of images.
    """

    def __init__(self, known: Mapping[str, Named], suffixes: tuple[str, ...] = ()) -> None:
        known = {normalize(name): one for name, one in known.items()}
        count = Counter(map(str.casefold, known))
        folded = {n.casefold(): one for n, one in known.items() if count[n.casefold()] == 1}
        self._known = folded | known
        self._suffixes = (*suffixes, *SUFFIXES, *FOREIGN)

    def find(self, name: str, *, anywhere: bool = False) -> Named | None:
        """Return what is known by a name, None if nothing is.

        anywhere: also by the end of the name, as exports name files where they were.
        """
        whole = normalize(name)
        parts = whole.replace("\\", "/").split("/") if anywhere else [whole]
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            stem = end.rpartition(".")[0] if end.lower().endswith(self._suffixes) else end
            for key in (end, stem, end.casefold(), stem.casefold()):
                if key in self._known:
                    return self._known[key]
        return None


class Files:
    """The files of some kinds below a folder of the source, found however a name is written.

    found: id (path below the folder, without suffix) -> path below the root. others: images of
    other kinds. problems: equal ids, linked and unreadable folders, unsupported formats.
    """

    def __init__(self, root: Path, folder: str, suffixes: tuple[str, ...] = SUFFIXES) -> None:
        """List the files; a folder that is missing is empty. Raise DatasetError if it is a link
        that leaves the root.
        """
        self.root, self.folder, self.suffixes = root, folder, suffixes
        self.found: dict[str, str] = {}
        self.others: list[str] = []
        self.problems: list[Problem] = []
        if (root / folder).is_dir():
            require_folder(root, folder)
        for directory, folders, files in os.walk(root / folder, onerror=self._unreadable):
            here = Path(directory)
            for name in sorted(folders):
                if (here / name).is_symlink():
                    what = "is a link to a folder, which is not followed"
                    self.problems.append(error(here / name, what, DO_MOVE))
            hints = HINTS if here == root else ""
            folders[:] = sorted(name for name in folders if name[0] != "." and name != hints)
            for name in sorted(name for name in files if not name.startswith(".")):
                self._add(here / name)
        known = {f"{folder}/{name}": name for name in self.found}
        self._names = Names(known | {name: name for name in self.found}, suffixes)

    def _unreadable(self, problem: OSError) -> None:
        """Report a folder that cannot be listed."""
        if not isinstance(problem, FileNotFoundError):
            what = f"cannot be read ({problem.strerror})"
            self.problems.append(error(problem.filename, what, "change its permissions"))

    def _add(self, file: Path) -> None:
        path = file.relative_to(self.root).as_posix()
        below = file.relative_to(self.root / self.folder).as_posix()
        name = normalize(below.rpartition(".")[0])
        if not below.lower().endswith(self.suffixes):
            if below.lower().endswith((*FOREIGN, *SUFFIXES, ".npy")):
                self.others.append(path)
            if self.suffixes == SUFFIXES and below.lower().endswith(FOREIGN):
                do = "save it as JPEG, PNG or WebP"
                self.problems.append(warning(file, "has an unsupported format", do))
        elif name in self.found:
            what = f"has the same id as {self.found[name]}"
            self.problems.append(error(file, what, "rename one of the two"))
        else:
            self.found[name] = path

    def id(self, name: str, *, anywhere: bool = False) -> str:
        """Return the id of a file named with or without suffix and folder, else the name itself;
        anywhere: see Names.find.
        """
        found = self._names.find(name, anywhere=anywhere)
        return normalize(name) if found is None else found

    def path(self, name: str) -> str | None:
        """Return the path below the root of the file that `name` leads to, None without one."""
        return self.found.get(self.id(name))


def strays(root: Path, *known: str) -> list[str]:
    """Return images and masks in other folders than those that are known."""
    inside = tuple(f"{folder}/" for folder in known)
    files = Files(root, ".")
    return [p for p in (*files.found.values(), *files.others) if not p.startswith(inside)]


def warn_unread(root: Path, paths: Sequence[str], folder: str) -> list[Problem]:
    """Warn of mask files that belong to no image, or that have another format than PNG."""
    if not paths:
        return []
    what = f"files that are not read: {len(paths)}, such as {paths[0]}"
    do = f"save masks as PNG under the name of their image: {folder}/NAME.png for NAME.jpg"
    return [warning(root, what, do)]
