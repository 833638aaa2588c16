"""Your own folder: images/, labels.csv, and optionally classes.txt and masks/.

labels.csv and classes.txt are read as spreadsheets and editors of all kinds save them.
"""

import csv
import io
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.images import DatasetError, error, read_bytes, warning
from pipeline.readers.source import (
    Entry,
    Source,
    find_id,
    find_images,
    problem_of_id,
    without_suffix,
)

IMAGES = "images"
SEMANTIC = ("masks/semantic", "masks")
INSTANCES = "masks/instances"
COLUMNS = ["image", "classes", "split"]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of labels.csv: image as written, cell of class names, split or None, file and line."""

    image: str
    cell: str
    split: str | None
    where: str


def read(root: Path) -> Source:
    """Read images/**, labels.csv (`image,classes[,split]`), and classes.txt and masks/ if present.

    An id is the path below images/ without suffix; a mask holds class number + 1. Raises
    DatasetError if labels.csv or classes.txt as a whole is unusable.
    """
    found, problems = find_images(root, IMAGES)
    table, listed = root / "labels.csv", root / "classes.txt"
    rows = read_labels(table)
    classes = read_classes(listed) if listed.is_file() else names_in(rows)
    if not classes:
        do = "write class names into the column classes"
        raise DatasetError(error(table, "names no class", do))
    source = Source(root, classes, problems=problems)
    source.entries = [_entry(source, row, found) for row in rows]
    for name in sorted(found.keys() - {entry.id for entry in source.entries}):
        what = f"has no row in {table.name}"
        source.problems.append(warning(root / found[name], what, "it is left out"))
    return source


def _entry(source: Source, row: Row, found: Mapping[str, str]) -> Entry:
    name = find_id(row.image, IMAGES, found)
    path = found.get(name, f"{IMAGES}/{row.image}")
    tags = source.known_classes(split_cell(row.cell, source.classes), row.where)
    semantic = instances = None
    if problem_of_id(name) is None:
        semantic, instances = _masks(source.root, found.get(name, f"{IMAGES}/{name}"))
    return Entry(name, path, row.where, tags, row.split, semantic, instances)


def _masks(root: Path, path: str) -> tuple[str | None, str | None]:
    """Return masks/semantic/<id>.png or masks/<id>.png, and masks/instances/<id>.png."""
    file = without_suffix(path.removeprefix(f"{IMAGES}/")) + ".png"
    masks = [f"{folder}/{file}" for folder in SEMANTIC if os.path.lexists(root / folder / file)]
    if not masks:
        return None, None
    instances = f"{INSTANCES}/{file}"
    return masks[0], instances if os.path.lexists(root / instances) else None


def read_text(path: Path) -> str:
    """Read a UTF-8 file with or without byte order mark; raise DatasetError."""
    data = read_bytes(path, "put the file there")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        what, do = "is not UTF-8", "save the file as UTF-8"
        raise DatasetError(error(f"{path}:{line}", what, do)) from None


def read_classes(path: Path) -> tuple[str, ...]:
    """Read class names, one a line; skip empty lines and a first line `background`.

    Raises DatasetError for repeated names or none.
    """
    names = [line.strip() for line in read_text(path).splitlines()]
    names = [name for name in names if name]
    if names and names[0].lower() == "background":
        names = names[1:]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        what = f"lists {', '.join(repeated)} more than once"
        raise DatasetError(error(path, what, "list every class once"))
    if not names:
        raise DatasetError(error(path, "lists no class", "write one class name per line"))
    return tuple(names)


def read_labels(path: Path) -> list[Row]:
    """Read the rows of labels.csv: `image,classes` and optionally `split`.

    Raises DatasetError that lists all bad lines.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows, problems = [], []
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        if header not in (COLUMNS[:2], COLUMNS):
            what = f"the first line is {','.join(header)!r}"
            do = "it must be image,classes or image,classes,split"
            raise DatasetError(error(f"{path}:1", what, do))
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                what = f"has {len(cells)} fields, the first line {len(header)}"
                do = "separate class names with ; and quote fields that contain a comma"
                problems.append(error(where, what, do))
                continue
            image, cell, split = [cell.strip() for cell in [*cells, ""][:3]]
            rows.append(Row(image, cell, split or None, where))
    except csv.Error as problem:
        what = f"cannot be read as CSV ({problem})"
        problems.append(error(f"{path}:{reader.line_num}", what, "fix the quotes"))
    if problems:
        raise DatasetError(problems)
    return rows


def split_cell(cell: str, known: Collection[str]) -> frozenset[str]:
    """Split a cell at `;`, else at blanks, unless the whole cell is a known class name."""
    if ";" in cell:
        return frozenset(name.strip() for name in cell.split(";") if name.strip())
    return frozenset([cell] if cell in known else cell.split())


def names_in(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the sorted class names of the rows; cells with `;` reveal which names have blanks."""
    known = set().union(*(split_cell(row.cell, ()) for row in rows if ";" in row.cell))
    return tuple(sorted(known.union(*(split_cell(row.cell, known) for row in rows))))
