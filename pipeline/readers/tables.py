"""Tables of tags and lists of classes: labels.csv, classes.txt, and the lists of other tools.

They are read as spreadsheets, editors and annotation tools of all kinds save them.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.data.images import DatasetError, Problem, error, read_bytes, warning
from pipeline.data.masks import VOID_COLOR
from pipeline.readers.source import Colors, no_class, normalize, number, unmark

LABELS = "labels.csv"
CLASS_LISTS = ("classes.txt", "class_names.txt")
LABELMAP = "labelmap.txt"
"""CVAT's list of classes with the colors that stand for them."""
COLUMNS = ["image", "classes", "split"]
SEPARATORS = ";|,"
NOTHING = frozenset({"good", "healthy", "negative", "no defect", "no_defect", "normal", "ok"})
"""Names that often stand for images without an object of any class."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of labels.csv: image as written, cell of class names, split or None, file and line."""

    image: str
    cell: str
    split: str | None
    where: str


def read_text(path: Path) -> str:
    """Read a UTF-8 file with or without byte order mark; raise DatasetError."""
    data = read_bytes(path, "put the file there")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        what, do = "is not UTF-8", "save the file as UTF-8"
        raise DatasetError(error(f"{path}:{line}", what, do)) from None


def read_json(path: Path, do: str = "put the file there") -> Any:
    """Read a JSON file; raise DatasetError. do: what to do if it cannot be read."""
    data = read_bytes(path, do)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as problem:
        do = "download or export it again"
        raise DatasetError(error(path, f"is not valid JSON ({problem})", do)) from problem


def find_classes(root: Path) -> dict[int, str]:
    """Return class names by mask value from the source's list of classes; nothing without one."""
    for name in CLASS_LISTS:
        if (root / name).is_file():
            return read_classes(root / name)
    if (root / LABELMAP).is_file():
        names = read_labelmap(root / LABELMAP).values()
        return number([name for name in names if no_class(name) is None])
    return {}


def read_classes(path: Path) -> dict[int, str]:
    """Read class names, one a line, by mask value; empty lines do not count (see `number`).

    Raises DatasetError for repeated names or none.
    """
    names = [normalize(line.strip()) for line in read_text(path).splitlines()]
    numbered = number([name for name in names if name])
    classes = [name for name in numbered.values() if no_class(name) is None]
    repeated = sorted({name for name in classes if classes.count(name) > 1})
    if repeated:
        what = f"lists {', '.join(repeated)} more than once"
        raise DatasetError(error(path, what, "list every class once"))
    if not classes:
        raise DatasetError(error(path, "lists no class", "write one class name per line"))
    return numbered


def read_labelmap(path: Path) -> dict[tuple[int, int, int], str]:
    """Read CVAT's lines `name:r,g,b:parts:actions`; return the name of each color.

    Raises DatasetError for other lines.
    """
    colors = {(0, 0, 0): "background", VOID_COLOR: "ignored"}
    for k, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            found = re.fullmatch(r"([^:]+):(\d+),(\d+),(\d+)(:.*)?", line.strip())
            if found is None:
                what = f"{line.strip()!r} is not a line `name:red,green,blue:parts:actions`"
                raise DatasetError(error(f"{path}:{k}", what, "export the file again"))
            red, green, blue = map(int, found.group(2, 3, 4))
            colors[red, green, blue] = normalize(found[1].strip())
    return colors


def read_colors(path: Path, names: Mapping[int, str]) -> Colors:
    """Return the mask value of each color of a labelmap; `names` is of classes by mask value."""
    values = {name: value for value, name in names.items()}
    colors = {}
    for color, name in read_labelmap(path).items():
        known = no_class(name)
        if known is not None or name in values:
            colors[color] = values[name] if known is None else known
    return colors


def read_rows(
    path: Path, columns: list[str], do: str, problems: list[Problem]
) -> Iterator[tuple[str, list[str]]]:
    """Yield place and cells of each row of a table, which may lack the last of the columns.

    Spreadsheets may write semicolons or tabs for the commas: the first line says which. Bad rows
    are added to the problems, with what to `do` about another number of cells. Raises DatasetError
    for other columns.
    """
    text = read_text(path)
    delimiter = next((sign for sign in ",;\t" if sign in text.partition("\n")[0]), ",")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        if header not in (columns[:-1], columns):
            what = f"the first line is {','.join(header)!r}"
            must = f"it must be {','.join(columns[:-1])} or {','.join(columns)}"
            raise DatasetError(error(f"{path}:1", what, must))
        for row in reader:
            where, cells = f"{path}:{reader.line_num}", [cell.strip() for cell in row]
            if any(cells) and len(cells) != len(header):
                what = f"has {len(cells)} fields, the first line {len(header)}"
                problems.append(error(where, what, do))
            elif any(cells):
                yield where, cells
    except csv.Error as problem:
        what = f"cannot be read as CSV ({problem})"
        problems.append(error(f"{path}:{reader.line_num}", what, "fix the quotes"))


def read_labels(path: Path) -> list[Row]:
    """Read the rows of labels.csv: `image,classes` and optionally `split`.

    Raises DatasetError that lists all bad lines.
    """
    rows, problems = [], list[Problem]()
    do = "separate class names with ; and quote fields that contain a comma"
    for where, cells in read_rows(path, COLUMNS, do, problems):
        image, cell, split = [*cells, ""][:3]
        if re.fullmatch(r"[\[({].*[\])}]", cell):  # a list, tuple or set of Python
            cell = re.sub(r"['\"]", "", cell[1:-1])
        rows.append(Row(image, normalize(cell), split or None, where))
    if problems:
        raise DatasetError(problems)
    return rows


def split_cell(cell: str, known: Collection[str]) -> frozenset[str]:
    """Split a cell into tags, class names perhaps marked, at `;`, `|` or `,`, else at blanks.

    The first of these ways that leaves only known names counts: the whole cell, one separator, any
    of them, blanks; if none does, the first that splits the cell.
    """
    used = [separator for separator in SEPARATORS if separator in cell]
    ways = [frozenset([cell] if cell else []), *(_parts(separator, cell) for separator in used)]
    ways += [_parts(SEPARATORS, cell), _parts(r"\s", cell)]
    for tags in ways:
        names = [unmark(tag, known)[0] for tag in tags]
        if all(not name or name in known or no_class(name) is not None for name in names):
            return tags
    return ways[1] if used else ways[-1]


def names_in(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the sorted class names of rows whose source has no list of classes.

    Cells with a separator reveal which names have blanks. Raises DatasetError if more than one
    separator is in use, as one of them may belong to the names.
    """
    used = {separator: row for row in rows for separator in row.cell if separator in SEPARATORS}
    if len(used) > 1:
        (first, _), (second, row) = list(used.items())[:2]
        what = f"the class names are separated by {first} and by {second}"
        do = f"use {SEPARATORS[0]} everywhere, or list the class names in classes.txt"
        raise DatasetError(error(row.where, what, do))
    separated = [row.cell for row in rows if used.keys() & set(row.cell)]
    known = {unmark(tag, ())[0] for cell in separated for tag in _parts(SEPARATORS, cell)}
    names = known | {unmark(tag, known)[0] for row in rows for tag in split_cell(row.cell, known)}
    return tuple(sorted(name for name in names if name and no_class(name) is None))


def check_blanks(path: Path, rows: Sequence[Row], classes: Collection[str]) -> list[Problem]:
    """Warn of names split at a blank that always follow each other, such as `polar bear`."""
    count = Counter(name for row in rows for name in split_cell(row.cell, classes))
    cells = [row.cell.split() for row in rows if row.cell not in classes]
    pairs = Counter(pair for cell in cells if {*cell} <= {*classes} for pair in pairwise(cell))
    phrases = [" ".join(pair) for pair, n in pairs.items() if n in (count[pair[0]], count[pair[1]])]
    if not phrases:
        return []
    names = ", ".join(map(repr, sorted(phrases)[:3]))
    what = f"read as two classes, which always occur together: {names}"
    do = "separate class names by ; if the blank belongs to a name, or list them in classes.txt"
    return [warning(path, what, do)]


def check_names(where: Path, names: Collection[str]) -> list[Problem]:
    """Warn of names that are made of others, such as `cat/dog`, and of names for what has none of
    the classes.
    """
    problems, known = [], {name.casefold() for name in names}
    do = "separate class names by ;, or ignore this if it is one class"
    for name in names:
        parts = [part for part in re.split(r"[\W_]+", name.casefold()) if part]
        if not parts or (len(parts) > 1 and known >= {*parts}):
            what = f"class {name!r} " + ("is made of other classes" if parts else "has no letters")
            problems.append(warning(where, what, do))
        elif name.casefold() in NOTHING:
            what = f"class {name!r} is learned like an object"
            remedy = "leave such images without a tag, or call it background, if it means no object"
            problems.append(warning(where, what, remedy))
    return problems


def _parts(separators: str, cell: str) -> frozenset[str]:
    """Split a cell at any of the separators; drop blanks around the names and empty ones."""
    return frozenset(part.strip() for part in re.split(f"[{separators}]", cell) if part.strip())
