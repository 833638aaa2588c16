"""A folder of one's own: images/, labels.csv and, for scoring, masks/."""

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.datasets.problems import DatasetError, error, warning
from pipeline.datasets.source import Entry, Source, complain_of_id, find_pictures, identify, without_suffix
from pipeline.datasets.tables import Row, names_in, read_classes, read_labels, split_cell

PICTURES = "images"
SEMANTIC = ("masks/semantic", "masks")
INSTANCES = "masks/instances"


def read(root: Path) -> Source:
    """Read images/**, labels.csv (`image,classes[,split]`), and, where there are any, classes.txt and masks/.

    An id is the path below images/ without suffix; a mask holds the class number + 1. Raises DatasetError
    when labels.csv or classes.txt cannot be used at all.
    """
    found, problems = find_pictures(root, PICTURES)
    table, listed = root / "labels.csv", root / "classes.txt"
    rows = read_labels(table)
    classes = read_classes(listed) if listed.is_file() else names_in(rows)
    if not classes:
        raise DatasetError(error(table, "names no class", "write class names into the column classes"))
    source = Source(root, classes, problems=problems)
    source.entries = [_entry(source, row, found) for row in rows]
    rowless = found.keys() - {entry.id for entry in source.entries}
    for name in sorted(rowless):
        source.problems.append(warning(root / found[name], f"has no row in {table.name}", "it is left out"))
    return source


def _entry(source: Source, row: Row, found: Mapping[str, str]) -> Entry:
    name = identify(row.image, PICTURES, found)
    tags = source.admit(split_cell(row.cell, source.classes), row.where)
    semantic = instances = None
    if complain_of_id(name) is None:
        semantic, instances = _masks(source.root, found.get(name, f"{PICTURES}/{name}"))
    return Entry(
        name, found.get(name, f"{PICTURES}/{row.image}"), row.where, tags, row.split, semantic, instances
    )


def _masks(root: Path, path: str) -> tuple[str | None, str | None]:
    """Mask files of a picture: masks/semantic/<id>.png or masks/<id>.png, and masks/instances/<id>.png."""
    file = without_suffix(path.removeprefix(f"{PICTURES}/")) + ".png"
    there = [f"{folder}/{file}" for folder in SEMANTIC if os.path.lexists(root / folder / file)]
    if not there:
        return None, None
    instances = f"{INSTANCES}/{file}"
    return there[0], instances if os.path.lexists(root / instances) else None
