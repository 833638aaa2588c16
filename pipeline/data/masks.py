"""Ground-truth masks, which are read here and nowhere else.

Only the stages dataset, scores and report may read them, and a training stage for `supervision:
truth`; the commands inspect and browse read them to draw them. Masks that this pipeline renders
itself lie as PNG files in one zip, because DVC and file systems are slow with many small files.
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
from pipeline.data.images import DatasetError, error, open_checked, read_bytes
from pipeline.data.index import RERUN, Index

MASKS = "masks.zip"
SEMANTIC, INSTANCES = "semantic/{}.png", "instances/{}.png"
"""Names of an image's masks in the archive."""
VOID_COLOR = (224, 224, 192)
"""Color of value 255 in VOC's palette."""
READABLE = 0o644 << 16
"""Permissions of an extracted file."""
AGAIN = "run `dvc repro dataset` if it was changed on purpose"


@contextmanager
def writing_archive(path: Path) -> Iterator[Callable[[str, bytes], None]]:
    """Yield a function that adds a file (name, bytes) to a new zip.

    The zip replaces `path` when the block ends without an error; equal files in equal order give
    equal bytes. Raises UserError if it cannot be written.
    """
    with replacing(path) as file, ZipFile(file, "w", ZIP_STORED) as archive:

        def add(name: str, data: bytes) -> None:
            """Append a file."""
            entry = ZipInfo(name)
            entry.external_attr = READABLE
            archive.writestr(entry, data)

        yield add


def read_archived(path: Path, name: str) -> bytes:
    """Return the content of a file in an archive; raise DatasetError that names both."""
    try:
        status = path.stat()
        return _opened(path, status.st_mtime_ns, status.st_size, os.getpid()).read(name)
    except KeyError:
        raise DatasetError(error(path / name, "no such file in the archive", RERUN)) from None
    except (OSError, BadZipFile, RuntimeError, ValueError, EOFError, zlib.error) as problem:
        raise DatasetError(error(path / name, f"cannot be read ({problem})", RERUN)) from None


@lru_cache(maxsize=4)
def _opened(path: Path, changed: int, size: int, process: int) -> ZipFile:
    """Open an archive once per process while the file is unchanged, as its directory is long."""
    return ZipFile(path)


def read_semantic(index: Index, name: str) -> np.ndarray:
    """Return the label map of an image, uint8 [H,W]: 0 background, c + 1 class c, 255 ignore.

    Raises DatasetError if there is none, or if it cannot be used.
    """
    file = index[name].semantic
    if file is None:
        raise DatasetError(error(name, "has no semantic mask", "check index.has_masks first"))
    return to_labels(_values(index, name, file), index.mask_values, index.masks_root / file)


def read_instances(index: Index, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the instances of an image: ids uint16 [H,W], 0 none, 1..N, and classes uint8 [N].

    The 0-based class of an instance is the most frequent label of its pixels in the semantic mask.
    Instances of the background (a class that is not in use) are dropped, the others are renumbered
    in the order of the file. Pixels that are void in the semantic mask, or 255 in an 8-bit instance
    file (VOC), belong to no instance. Raises DatasetError as read_semantic does.
    """
    file = index[name].instances
    if file is None:
        raise DatasetError(error(name, "has no instance mask", "check index.has_instances first"))
    return number_instances(_values(index, name, file), read_semantic(index, name))


def number_instances(ids: np.ndarray, semantic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumber the instances `ids` of a file, uint8 or uint16 [H,W], as read_instances says."""
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
    """Return the values of a PNG mask: palette indices or gray levels, uint8 or uint16 [H,W].

    Raises DatasetError that names the file.
    """
    return decode_values(read_bytes(path, "put the mask there"), path)


def decode_values(data: bytes, path: Path) -> np.ndarray:
    """Decode a mask file as read_values does; `path` is for the error message."""
    image: Image.Image = open_checked(data, path, ("PNG",))
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode in ("L", "P"):
        return np.array(image)
    if image.mode.startswith("I"):
        return np.array(image).astype(np.uint16)
    what = f"is a color image (mode {image.mode}), not a mask"
    raise DatasetError(error(path, what, "save class numbers as a gray or palette PNG"))


def color_values(data: bytes, path: Path, colors: Mapping[tuple[int, int, int], int]) -> np.ndarray:
    """Decode a mask file whose colors stand for the values given, uint8 [H,W].

    A gray file, and one with a palette of other colors, is decoded as by decode_values. `path` is
    for the error message. Raises DatasetError for a color without a value.
    """
    image = open_checked(data, path, ("PNG",))
    codes, table = _codes(image), {_code(color): value for color, value in colors.items()}
    present, dense = np.unique(codes, return_inverse=True)
    unknown = [code for code in present.tolist() if code not in table]
    if image.mode not in ("RGB", "RGBA", "P") or (image.mode == "P" and unknown):
        return decode_values(data, path)
    if unknown:
        shown = ", ".join(str((code >> 16, code >> 8 & 255, code & 255)) for code in unknown[:3])
        do = "add it to labelmap.txt, or save the masks without smoothing"
        raise DatasetError(error(path, f"has colors that stand for no class: {shown}", do))
    values = np.array([table[code] for code in present.tolist()], np.uint8)
    return values[dense.reshape(codes.shape)]


def color_ids(data: bytes, path: Path) -> np.ndarray:
    """Decode a mask file of instances whose colors or values are their ids, uint16 [H,W].

    Black and VOC's color of void are no instance, and neither is 255 in an 8-bit file.
    """
    image = open_checked(data, path, ("PNG",))
    if image.mode not in ("RGB", "RGBA"):
        values = decode_values(data, path)
        void = (values == IGNORE) & (values.dtype == np.uint8)
        return np.where(void, 0, values).astype(np.uint16)
    codes = _codes(image)
    present, dense = np.unique(codes, return_inverse=True)
    objects = ~np.isin(present, [0, _code(VOID_COLOR)])
    return np.where(objects, np.cumsum(objects), 0).astype(np.uint16)[dense.reshape(codes.shape)]


def _codes(image: Image.Image) -> np.ndarray:
    """Return the colors of an image as numbers, int64 [H,W]."""
    return np.asarray(image.convert("RGB")).astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])


def _code(color: tuple[int, int, int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def to_labels(values: np.ndarray, table: Mapping[int, int], path: Path) -> np.ndarray:
    """Map the values of a mask file, uint8 or uint16 [H,W], to labels uint8 [H,W] by the table.

    Raises DatasetError that names the file `path` and the values that the table lacks.
    """
    labels = np.full(1 << (8 * values.itemsize), -1, np.int16)
    for value, label in table.items():
        if value < len(labels):
            labels[value] = label
    result = labels[values]
    if result.min(initial=0) < 0:
        unknown = ", ".join(map(str, np.unique(values[result < 0])[:8]))
        known = format_ranges(table)
        do = f"use {known} (0 background, 255 ignore) or list the missing classes"
        raise DatasetError(error(path, f"has values without a class: {unknown}", do))
    return result.astype(np.uint8)


def format_ranges(table: Mapping[int, int]) -> str:
    """Format the known mask values as ranges, such as `0..20, 255`."""
    runs: list[list[int]] = []
    for value in sorted(table):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(first) if first == last else f"{first}..{last}" for first, last in runs)


def _values(index: Index, name: str, file: str) -> np.ndarray:
    """Return the values of a mask file or archive member; raise DatasetError for another size."""
    path, image = index.masks_root / file, index[name]
    if index.masks_root.name == MASKS:
        values = decode_values(read_archived(index.masks_root, file), path)
    else:
        values = read_values(path)
    if values.shape != (image.height, image.width):
        have, want = f"{values.shape[1]} x {values.shape[0]}", f"{image.width} x {image.height}"
        raise DatasetError(error(path, f"is {have} pixels, its image {want}", AGAIN))
    return values
