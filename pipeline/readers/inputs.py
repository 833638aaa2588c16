"""Image files named on a command line: folders, patterns and single images, without tags."""

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.images import SUFFIXES
from pipeline.errors import UserError
from pipeline.readers.source import UNSUPPORTED, without_suffix


@dataclass(frozen=True, slots=True)
class InputImages:
    """Images to predict.

    files: name -> file, sorted; a name is the POSIX path below the common parent folder, including
    the suffix, and unique without it. folders: those that were searched. unsupported: images of
    other formats, which are skipped.
    """

    files: Mapping[str, Path]
    folders: tuple[Path, ...]
    unsupported: tuple[Path, ...]


def find_inputs(arguments: Sequence[str]) -> InputImages:
    """Find the images of folders (recursively), patterns such as `photos/**/*.jpg`, and files.

    Each image counts once; hidden files are skipped, links to folders are not followed. Raises
    UserError that names an argument without images, and two images whose results would have the
    same name.
    """
    roots: list[Path] = []
    found: dict[Path, Path] = {}
    unsupported: set[Path] = set()
    for argument in arguments:
        root, paths = _expand(argument)
        images = [path for path in paths if _is_image(path) or path == Path(argument)]
        others = [path for path in paths if _is_unsupported(path) and path != Path(argument)]
        if not images:
            raise UserError(_explain_no_image(argument, others))
        roots.append(root)
        found |= {Path(os.path.abspath(path)): path for path in images}
        unsupported.update(others)
    base = Path(os.path.commonpath([os.path.abspath(root) for root in roots]))
    files = {full.relative_to(base).as_posix(): path for full, path in found.items()}
    _check_unique(files)
    folders = tuple(path for path in map(Path, arguments) if path.is_dir())
    return InputImages(dict(sorted(files.items())), folders, tuple(sorted(unsupported)))


def _expand(argument: str) -> tuple[Path, list[Path]]:
    """Return the folder that an argument refers to, and its files."""
    path = Path(argument)
    if path.is_dir():
        return path, sorted(_walk(path))
    if path.is_file():
        return path.parent, [path]
    if glob.has_magic(argument):
        matches = (Path(match) for match in glob.iglob(argument, recursive=True))
        return _fixed_part(path), sorted(match for match in matches if match.is_file())
    raise UserError(
        f"{argument}: no such file or folder; "
        f"name a folder, an image, or a quoted pattern such as 'photos/**/*.jpg'"
    )


def _walk(folder: Path) -> Iterable[Path]:
    for directory, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(directory, file) for file in files if not file.startswith("."))


def _fixed_part(pattern: Path) -> Path:
    """Return the folder at the start of a pattern, before its first wildcard."""
    part = pattern
    while glob.has_magic(str(part)):
        part = part.parent
    return part


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _is_unsupported(path: Path) -> bool:
    return path.suffix.lower() in UNSUPPORTED


def _explain_no_image(argument: str, unsupported: Sequence[Path]) -> str:
    formats = ", ".join(sorted({path.suffix.lower() for path in unsupported}))
    hint = "; name another folder or pattern"
    if unsupported:
        count = f"{len(unsupported)} of unsupported formats ({formats})"
        hint = f", but {count}; save them as JPEG, PNG or WebP"
    return f"{argument}: contains no image ({', '.join(SUFFIXES)}){hint}"


def _check_unique(files: Mapping[str, Path]) -> None:
    taken: dict[str, Path] = {}
    for name, path in files.items():
        stem = without_suffix(name)
        if stem in taken:
            raise UserError(
                f"{taken[stem]} and {path} differ only in their suffixes, so that one result would "
                f"replace the other; rename one of them"
            )
        taken[stem] = path
