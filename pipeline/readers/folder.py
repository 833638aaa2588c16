"""A folder of one's own: images/, labels.csv and, for scoring, masks/.

Hand-made text files: labels.csv and classes.txt, as spreadsheets and editors of all kinds save
them.

Tags from `cls_labels.npy`, the pickled table that much code on VOC ships, without running what a
pickle asks for.
"""

import csv
import io
import os
import pickle
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray
from numpy._core.numeric import _frombuffer  # type: ignore[attr-defined]
from numpy.lib import format as npy

from pipeline.data.images import read_bytes
from pipeline.data.problems import DatasetError, error, warning
from pipeline.readers.source import (
    Entry,
    Source,
    complain_of_id,
    find_images,
    identify,
    without_suffix,
)

COLUMNS = ("image", "classes", "split")
MAX_TEXT = 256 * 2**20
"""Largest text file that is read, in bytes: a labels.csv of some million images."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of labels.csv: image as written, cell of class names, split or None, `where` = file
    and line.
    """

    image: str
    cell: str
    split: str | None
    where: str


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without byte order mark; raises DatasetError."""
    data = read_bytes(path, "put the file there", MAX_TEXT)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        raise DatasetError(
            error(f"{path}:{line}", "is not UTF-8", "save the file as UTF-8")
        ) from None


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names of classes.txt, one a line; a first line `background` and empty lines do not
    count. Raises DatasetError.
    """
    names = [line.strip() for line in read_text(path).splitlines()]
    names = [name for name in names if name]
    if names and names[0].lower() == "background":
        names = names[1:]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DatasetError(
            error(path, f"lists {', '.join(repeated)} more than once", "list every class once")
        )
    if not names:
        raise DatasetError(error(path, "lists no class", "write one class name a line"))
    return tuple(names)


def read_labels(path: Path) -> list[Row]:
    """The rows of labels.csv: `image,classes` and, if there, `split`; raises DatasetError listing
    all bad lines.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows, problems = [], []
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        if header[:2] != list(COLUMNS[:2]) or header[2:] not in ([], ["split"]):
            what = f"the first line is {','.join(header)!r}"
            raise DatasetError(
                error(f"{path}:1", what, "it must be image,classes or image,classes,split")
            )
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                what = f"has {len(cells)} fields, the first line {len(header)}"
                problems.append(
                    error(
                        where,
                        what,
                        "separate class names with ; and quote a field that holds a comma",
                    )
                )
                continue
            image, cell, split = [cell.strip() for cell in [*cells, ""][:3]]
            rows.append(Row(image, cell, split or None, where))
    except csv.Error as problem:
        problems.append(
            error(
                f"{path}:{reader.line_num}", f"cannot be read as csv ({problem})", "mend the quotes"
            )
        )
    if problems:
        raise DatasetError(problems)
    return rows


def split_cell(cell: str, known: Collection[str]) -> frozenset[str]:
    """Class names of a cell: split at `;`; without one, the cell is a known name as a whole or
    split at blanks.
    """
    if ";" in cell:
        return frozenset(name.strip() for name in cell.split(";") if name.strip())
    return frozenset([cell] if cell in known else cell.split())


def names_in(rows: Sequence[Row]) -> tuple[str, ...]:
    """Sorted class names that the rows use; cells with `;` tell which names hold blanks."""
    known = set().union(*(split_cell(row.cell, ()) for row in rows if ";" in row.cell))
    return tuple(sorted(known.union(*(split_cell(row.cell, known) for row in rows))))


IMAGES = "images"
SEMANTIC = ("masks/semantic", "masks")
INSTANCES = "masks/instances"


def read(root: Path) -> Source:
    """Read images/**, labels.csv (`image,classes[,split]`), and, where there are any, classes.txt
    and masks/.

    An id is the path below images/ without suffix; a mask holds the class number + 1. Raises
    DatasetError when labels.csv or classes.txt cannot be used at all.
    """
    found, problems = find_images(root, IMAGES)
    table, listed = root / "labels.csv", root / "classes.txt"
    rows = read_labels(table)
    classes = read_classes(listed) if listed.is_file() else names_in(rows)
    if not classes:
        raise DatasetError(
            error(table, "names no class", "write class names into the column classes")
        )
    source = Source(root, classes, problems=problems)
    source.entries = [_entry(source, row, found) for row in rows]
    rowless = found.keys() - {entry.id for entry in source.entries}
    for name in sorted(rowless):
        source.problems.append(
            warning(root / found[name], f"has no row in {table.name}", "it is left out")
        )
    return source


def _entry(source: Source, row: Row, found: Mapping[str, str]) -> Entry:
    name = identify(row.image, IMAGES, found)
    tags = source.admit(split_cell(row.cell, source.classes), row.where)
    semantic = instances = None
    if complain_of_id(name) is None:
        semantic, instances = _masks(source.root, found.get(name, f"{IMAGES}/{name}"))
    return Entry(
        name,
        found.get(name, f"{IMAGES}/{row.image}"),
        row.where,
        tags,
        row.split,
        semantic,
        instances,
    )


def _masks(root: Path, path: str) -> tuple[str | None, str | None]:
    """Mask files of an image: masks/semantic/<id>.png or masks/<id>.png, and
    masks/instances/<id>.png.
    """
    file = without_suffix(path.removeprefix(f"{IMAGES}/")) + ".png"
    there = [f"{folder}/{file}" for folder in SEMANTIC if os.path.lexists(root / folder / file)]
    if not there:
        return None, None
    instances = f"{INSTANCES}/{file}"
    return there[0], instances if os.path.lexists(root / instances) else None


MAX_BYTES = 256 * 2**20


def read_multihot(path: Path, classes: Sequence[str]) -> dict[str, frozenset[str]]:
    """Class names by image id from a 0-d object array holding {id: float [C]}; ids 2007000032
    become 2007_000032.

    Raises DatasetError for anything else, in particular for a pickle that names more than numpy's
    arrays.
    """
    try:
        return {_identify(key): _names(row, classes) for key, row in _load(path).items()}
    except Exception as problem:  # a hostile or damaged pickle may raise anything
        what = f"is no table of VOC tags ({problem})"
        raise DatasetError(
            error(path, what, "use labels.csv or Annotations/*.xml instead")
        ) from problem


def _load(path: Path) -> dict[Any, np.ndarray]:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    stream = BytesIO(path.read_bytes())
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    shape, _, dtype = readers[npy.read_magic(stream)](stream)
    if shape != () or dtype != np.dtype(object):
        raise ValueError(f"array of {dtype} {shape}, not one object")
    loaded = _ArrayUnpickler(stream).load()
    table = loaded.item() if isinstance(loaded, np.ndarray) else loaded
    if not isinstance(table, dict):
        raise ValueError(f"a {type(table).__name__}, not a dict")
    return table


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds numpy arrays, scalars and dtypes, and refuses every other global."""

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle asks for; raises UnpicklingError unless arrays are made of it."""
        place = (module.replace("numpy.core.", "numpy._core."), name)
        if place not in _admitted():
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return _admitted()[place]


def _admitted() -> dict[tuple[str, str], Any]:
    """What pickled arrays of all numpy versions and pickle protocols call."""
    return {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy._core.multiarray", "_reconstruct"): multiarray._reconstruct,
        ("numpy._core.multiarray", "scalar"): multiarray.scalar,
        ("numpy._core.numeric", "_frombuffer"): _frombuffer,
        ("_codecs", "encode"): _encode_latin1,
    }


def _encode_latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 spells bytes; `_codecs.encode` itself would import a codec of any name."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}, which is refused")
    return text.encode("latin1")


def _identify(key: Any) -> str:
    if isinstance(key, str):
        return key
    year, number = divmod(int(key), 1_000_000)
    return f"{year:04d}_{number:06d}"


def _names(row: Any, classes: Sequence[str]) -> frozenset[str]:
    if np.shape(row) != (len(classes),):
        raise ValueError(f"a row of shape {np.shape(row)} for {len(classes)} classes")
    values = np.asarray(row, np.float32)
    return frozenset(name for name, value in zip(classes, values, strict=True) if value > 0)
