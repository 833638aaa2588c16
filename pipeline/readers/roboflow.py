"""Roboflow's folders with a table `_classes.csv`, one per split or a single one.

The table names the values of semantic masks, `Pixel Value, Class`, which lie next to the images as
NAME_mask.png; or it holds the tags of each image, `filename, CLASS, CLASS, ...` with 0 and 1.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.data.images import DatasetError, error, warning
from pipeline.readers.source import Entry, Files, Source, normalize, normalize_split, number
from pipeline.readers.tables import read_text

TABLE = "_classes.csv"
MASK = "_mask"
VALUE = "pixel value"


def find_tables(root: Path) -> list[Path]:
    """Return the tables of all splits."""
    return sorted(root.glob(f"*/{TABLE}")) or sorted(root.glob(TABLE))


def read(root: Path) -> Source:
    """Read the images of all splits; where there are masks, their classes are the tags.

    Raises DatasetError for tables that are damaged or list different classes.
    """
    source = Source(root)
    for path in find_tables(root):
        lines = csv.reader(read_text(path).splitlines())
        rows = [[normalize(cell.strip()) for cell in cells] for cells in lines if any(cells)]
        folder = path.parent.relative_to(root).as_posix()
        images, split = Files(root, folder), None if folder == "." else normalize_split(folder)
        source.problems += images.problems
        source.tags_of_masks = bool(rows) and rows[0][0].casefold() == VALUE
        try:
            names = number(rows[0][1:])
            if source.tags_of_masks:
                names = {int(value): name for value, name in rows[1:]}
            if len(names) == 0 or any(len(row) != len(rows[0]) for row in rows):
                raise ValueError
        except (ValueError, IndexError):
            what = f"is neither `{VALUE}, class` nor `filename, CLASS, CLASS, ...`"
            raise DatasetError(error(path, what, "export it again")) from None
        if source.names and source.names != names:
            what = f"lists other classes than the {TABLE} of another folder"
            raise DatasetError(error(path, what, "export all splits together"))
        source.names = names
        masks = source.tags_of_masks
        entries = _with_masks(images) if masks else _with_tags(source, path, rows, images)
        source.entries += [replace(entry, split=split) for entry in entries]
    source.separate_ids()
    return source


def _with_masks(images: Files) -> Iterator[Entry]:
    for name, path in images.found.items():
        if not name.endswith(MASK) or name.removesuffix(MASK) not in images.found:
            where, mask = str(images.root / path), images.found.get(name + MASK)
            yield Entry(name, path, where, frozenset(), semantic=mask)


def _with_tags(
    source: Source, path: Path, rows: Sequence[Sequence[str]], images: Files
) -> Iterator[Entry]:
    listed = {images.id(row[0]): (row, f"{path}:{k}") for k, row in enumerate(rows[1:], start=2)}
    for name, (row, where) in listed.items():
        tags = [tag for tag, flag in zip(rows[0], row, strict=True) if flag == "1"]
        image = images.found.get(name, f"{images.folder}/{row[0]}")
        yield Entry(name, image, where, source.known_classes(tags, where))
    for name in sorted(images.found.keys() - listed.keys()):
        what = f"has no row in {path.name}"
        source.problems.append(warning(images.root / images.found[name], what, "it is left out"))
