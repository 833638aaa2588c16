"""Image files that a person names: folders, patterns and single images, without tags or an index."""

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.images import SUFFIXES
from pipeline.errors import UserError
from pipeline.readers.source import FOREIGN, without_suffix


@dataclass(frozen=True, slots=True)
class Given:
    """Images to work on.

    files: name -> file, sorted; a name is the POSIX path below the folder that holds everything
    named, suffix included, and no two are equal without it. folders: those that were searched.
    foreign: images of kinds that are not read, left out.
    """

    files: Mapping[str, Path]
    folders: tuple[Path, ...]
    foreign: tuple[Path, ...]


def find_given(arguments: Sequence[str]) -> Given:
    """The images of folders (searched to their depth), patterns such as `photos/**/*.jpg`, and
    files, each once.

    Hidden files are left out, links to folders not followed. Raises UserError that names an
    argument which leads to no image, and two images whose results would have one name.
    """
    roots: list[Path] = []
    found: dict[Path, Path] = {}
    foreign: list[Path] = []
    for argument in arguments:
        root, paths = _look(argument)
        other = [
            path for path in paths if path.suffix.lower() in FOREIGN and path != Path(argument)
        ]
        images = [path for path in paths if _is_image(path) or path == Path(argument)]
        if not images:
            raise UserError(_complain(argument, other))
        roots.append(root)
        found |= {Path(os.path.abspath(path)): path for path in images}
        foreign += other
    base = Path(os.path.commonpath([os.path.abspath(root) for root in roots]))
    files = {full.relative_to(base).as_posix(): path for full, path in found.items()}
    _check_unique(files)
    folders = tuple(path for path in map(Path, arguments) if path.is_dir())
    return Given(dict(sorted(files.items())), folders, tuple(sorted(set(foreign))))


def _look(argument: str) -> tuple[Path, list[Path]]:
    """The folder that an argument is about, and the files it stands for."""
    path = Path(argument)
    if path.is_dir():
        return path, sorted(_walk(path))
    if path.is_file():
        return path.parent, [path]
    if glob.has_magic(argument):
        matches = (Path(match) for match in glob.iglob(argument, recursive=True))
        return _fixed_part(path), sorted(match for match in matches if match.is_file())
    raise UserError(
        f"{argument}: no such file or folder; name a folder, an image, or a pattern in quotes such as 'photos/**/*.jpg'"
    )


def _walk(folder: Path) -> Iterable[Path]:
    for directory, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(directory, file) for file in files if not file.startswith("."))


def _fixed_part(pattern: Path) -> Path:
    """The folder that a pattern begins with, before its first wildcard."""
    part = pattern
    while glob.has_magic(str(part)):
        part = part.parent
    return part


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _complain(argument: str, foreign: Sequence[Path]) -> str:
    there = ", ".join(sorted({path.suffix.lower() for path in foreign}))
    hint = (
        f", but {len(foreign)} of kinds that are not read ({there}): save them as JPEG, PNG or WebP"
        if there
        else ""
    )
    return f"{argument}: holds no image ({', '.join(SUFFIXES)}){hint or '; name another folder or pattern'}"


def _check_unique(files: Mapping[str, Path]) -> None:
    taken: dict[str, Path] = {}
    for name, path in files.items():
        stem = without_suffix(name)
        if stem in taken:
            raise UserError(
                f"{taken[stem]} and {path} differ in their endings alone, so one result would replace the other; rename one of them"
            )
        taken[stem] = path
