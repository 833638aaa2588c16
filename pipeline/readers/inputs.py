"""Image files named on the command line: folders, patterns and single files, without an index."""

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.images import SUFFIXES
from pipeline.errors import UserError
from pipeline.readers.source import FOREIGN, without_suffix


@dataclass(frozen=True, slots=True)
class InputImages:
    """Images to run a model on.

    files: name -> file, sorted; a name is the POSIX path, with suffix, below the common folder of
    all arguments, and names are unique without their suffix. folders: the folders searched.
    foreign: images in formats that are not supported, skipped.
    """

    files: Mapping[str, Path]
    folders: tuple[Path, ...]
    foreign: tuple[Path, ...]


def find_images(arguments: Sequence[str]) -> InputImages:
    """Find the images of folders (recursively), patterns such as `photos/**/*.jpg`, and files.

    Each image counts once. Hidden files are skipped, links to folders not followed. Raise UserError
    for an argument without images, and for two images whose results would have one name.
    """
    roots: list[Path] = []
    found: dict[Path, Path] = {}
    foreign: list[Path] = []
    for argument in arguments:
        root, paths = _search(argument)
        named = Path(argument)
        other = [path for path in paths if path.suffix.lower() in FOREIGN]
        images = [
            path
            for path in paths
            if path.suffix.lower() in SUFFIXES or (path == named and path not in other)
        ]
        if not images:
            raise UserError(_no_images(argument, other))
        roots.append(root)
        found |= {Path(os.path.abspath(path)): path for path in images}
        foreign += other
    base = Path(os.path.commonpath([os.path.abspath(root) for root in roots]))
    files = {full.relative_to(base).as_posix(): path for full, path in found.items()}
    _check_unique(files)
    folders = tuple(path for path in map(Path, arguments) if path.is_dir())
    return InputImages(dict(sorted(files.items())), folders, tuple(sorted(set(foreign))))


def _search(argument: str) -> tuple[Path, list[Path]]:
    """Return the folder that an argument's names are relative to, and the files it stands for."""
    path = Path(argument)
    if not path.exists():
        path = Path(argument).expanduser()  # the shell leaves a quoted `~` as it is
    if path.is_dir():
        return path, sorted(_walk(path))
    if path.is_file():
        return path.parent, [path]
    # A folder of that name comes before a pattern: `photos [1]/*.jpg`.
    root = next(parent for parent in path.parents if parent.is_dir() or parent == parent.parent)
    pattern = str(path.relative_to(root))
    if glob.has_magic(pattern):
        for form in (pattern, pattern.replace("[", "[[]")):  # brackets may belong to the names
            matches = (
                Path(root, match) for match in glob.iglob(form, root_dir=root, recursive=True)
            )
            if files := sorted(match for match in matches if match.is_file()):
                return root, files
        return root, []
    raise UserError(
        f"{argument}: no such file or folder; name a folder, an image, or a pattern in quotes "
        "such as 'photos/**/*.jpg'"
    )


def _walk(folder: Path) -> Iterable[Path]:
    for directory, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(directory, file) for file in files if not file.startswith("."))


def _no_images(argument: str, foreign: Sequence[Path]) -> str:
    """Return the message for an argument that leads to no image."""
    hint = "; name another folder or pattern"
    if foreign:
        suffixes = ", ".join(sorted({path.suffix.lower() for path in foreign}))
        hint = f", but {len(foreign)} in other formats ({suffixes}): convert to JPEG, PNG or WebP"
    return f"{argument}: no images ({', '.join(SUFFIXES)}){hint}"


def _check_unique(files: Mapping[str, Path]) -> None:
    taken: dict[str, Path] = {}
    for name, path in files.items():
        other = taken.setdefault(without_suffix(name), path)
        if other != path:
            raise UserError(
                f"{other} and {path} differ only in their suffix, so one result would overwrite "
                "the other; rename one of them"
            )
