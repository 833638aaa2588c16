"""Hand-made text files: labels.csv and classes.txt, as spreadsheets and editors of all kinds save them."""

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.images import read_bytes
from pipeline.datasets.problems import DatasetError, error

COLUMNS = ("image", "classes", "split")
MAX_TEXT = 256 * 2**20
"""Largest text file that is read, in bytes: a labels.csv of some million pictures."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of labels.csv: picture as written, cell of class names, split or None, `where` = file and
    line."""

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
        raise DatasetError(error(f"{path}:{line}", "is not UTF-8", "save the file as UTF-8")) from None


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names of classes.txt, one a line; a first line `background` and empty lines do not count. Raises
    DatasetError."""
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
    """The rows of labels.csv: `image,classes` and, if there, `split`; raises DatasetError listing all bad
    lines."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows, problems = [], []
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        if header[:2] != list(COLUMNS[:2]) or header[2:] not in ([], ["split"]):
            what = f"the first line is {','.join(header)!r}"
            raise DatasetError(error(f"{path}:1", what, "it must be image,classes or image,classes,split"))
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                what = f"has {len(cells)} fields, the first line {len(header)}"
                problems.append(
                    error(where, what, "separate class names with ; and quote a field that holds a comma")
                )
                continue
            image, cell, split = [cell.strip() for cell in [*cells, ""][:3]]
            rows.append(Row(image, cell, split or None, where))
    except csv.Error as problem:
        problems.append(
            error(f"{path}:{reader.line_num}", f"cannot be read as csv ({problem})", "mend the quotes")
        )
    if problems:
        raise DatasetError(problems)
    return rows


def split_cell(cell: str, known: Collection[str]) -> frozenset[str]:
    """Class names of a cell: split at `;`; without one, the cell is a known name as a whole or split at
    blanks."""
    if ";" in cell:
        return frozenset(name.strip() for name in cell.split(";") if name.strip())
    return frozenset([cell] if cell in known else cell.split())


def names_in(rows: Sequence[Row]) -> tuple[str, ...]:
    """Sorted class names that the rows use; cells with `;` tell which names hold blanks."""
    known = set().union(*(split_cell(row.cell, ()) for row in rows if ";" in row.cell))
    return tuple(sorted(known.union(*(split_cell(row.cell, known) for row in rows))))
