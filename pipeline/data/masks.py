"""Pixel truth: the only reader of masks. Nothing but scoring, or training that asks for the upper
bound, may call it.

Masks that this pipeline draws: PNG files in one zip, because DVC and file systems take their time
for every file.
"""

import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from PIL import Image

from pipeline.core.artifacts import IGNORE
from pipeline.core.resume import replacing
from pipeline.data.images import MAX_BYTES, open_checked, read_bytes
from pipeline.data.index import RERUN, Index
from pipeline.data.problems import DatasetError, error

MASKS = "masks.zip"
SEMANTIC, INSTANCES = "semantic/{}.png", "instances/{}.png"
"""Names of an image's masks in the archive."""
READABLE = 0o644 << 16
"""Rights of a file that is taken out of the archive."""


@contextmanager
def writing_archive(path: Path) -> Iterator[Callable[[str, bytes], None]]:
    """Yield what adds a file, by name and bytes, to a zip that takes the place of `path` when the
    block ends well; equal files in equal order give equal bytes. Raises UserError where it cannot
    be written.
    """
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
    """An archive, opened once in a process for as long as the file stays the same: its list of
    files is long.
    """
    return ZipFile(path)


AGAIN = "run `dvc repro dataset` if it was changed on purpose"


def read_semantic(index: Index, name: str) -> np.ndarray:
    """Label map of an image, uint8 [H,W]: 0 background, c + 1 class c, 255 ignore; raises
    DatasetError.
    """
    file = index[name].semantic
    if file is None:
        raise DatasetError(error(name, "has no semantic mask", "ask index.has_masks first"))
    path = index.masks_root / file
    return translate(_values(index, name, file), index.mask_values, path)


def read_instances(index: Index, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Instances of an image: ids uint16 [H,W], 0 none, 1..N, and their 0-based classes uint8 [N];
    raises DatasetError.

    The class is the commonest label under the instance in the semantic mask; instances of the
    background (a class that is not in use) go, the others are numbered again in the order of the
    file. Pixels that are void in the semantic mask, or 255 in an 8-bit instance file (VOC), belong
    to no instance.
    """
    file = index[name].instances
    if file is None:
        raise DatasetError(error(name, "has no instance mask", "ask index.has_instances first"))
    return number_instances(_values(index, name, file), read_semantic(index, name))


def number_instances(ids: np.ndarray, semantic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Instance ids as in the file (uint8 or uint16 [H,W]) and the label map to what read_instances
    gives.
    """
    void = semantic == IGNORE
    if ids.dtype == np.uint8:
        void = void | (ids == IGNORE)
    present, dense = np.unique(np.where(void, 0, ids), return_inverse=True)
    votes = np.bincount(
        dense.ravel() * 256 + np.where(void, 0, semantic).ravel(), minlength=len(present) * 256
    )
    labels = votes.reshape(len(present), 256).argmax(1)
    kept = (present > 0) & (labels > 0)
    table = np.where(kept, np.cumsum(kept), 0).astype(np.uint16)
    return table[dense.reshape(ids.shape)], (labels[kept] - 1).astype(np.uint8)


def read_values(path: Path) -> np.ndarray:
    """The stored values of a PNG mask, palette indices or gray levels, uint8 or uint16 [H,W];
    raises DatasetError.
    """
    return decode_values(read_bytes(path, "put the mask there"), path)


def decode_values(data: bytes, path: Path) -> np.ndarray:
    """The values in the bytes of a mask file, see read_values; `path` is for the error message."""
    image: Image.Image = open_checked(data, path, ("PNG",))
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode in ("L", "P"):
        return np.array(image)
    if image.mode.startswith("I"):
        return np.array(image).astype(np.uint16)
    what = f"is a color image (mode {image.mode}), not a mask"
    raise DatasetError(error(path, what, "save class numbers as a gray or palette PNG"))


def translate(values: np.ndarray, table: Mapping[int, int], path: Path) -> np.ndarray:
    """Values of a mask file to labels uint8; raises DatasetError that names the values missing in
    the table.
    """
    labels = np.full(1 << (8 * values.itemsize), -1, np.int16)
    for value, label in table.items():
        if value < len(labels):
            labels[value] = label
    result = labels[values]
    if result.min(initial=0) < 0:
        strange = ", ".join(map(str, np.unique(values[result < 0])[:8]))
        what = f"holds {strange}, which are no class"
        raise DatasetError(
            error(
                path,
                what,
                f"use {shorten(table)} (0 background, 255 ignore) or list the missing classes",
            )
        )
    return result.astype(np.uint8)


def shorten(table: Mapping[int, int]) -> str:
    """The known mask values as a range and the rest, such as `0..20, 255`."""
    runs: list[list[int]] = []
    for value in sorted(table):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(first) if first == last else f"{first}..{last}" for first, last in runs)


def _values(index: Index, name: str, file: str) -> np.ndarray:
    """The values of a mask file, which may lie in an archive and must be as large as its image;
    raises DatasetError.
    """
    path, image = index.masks_root / file, index[name]
    if index.masks_root.name == MASKS:
        values = decode_values(read_archived(index.masks_root, file), path)
    else:
        values = read_values(path)
    if values.shape != (image.height, image.width):
        what = f"is {values.shape[1]} x {values.shape[0]} pixels, its image {image.width} x {image.height}"
        raise DatasetError(error(path, what, AGAIN))
    return values
