"""A folder of one's own: images/, labels.csv and, for scoring, masks/."""

from pathlib import Path

from pipeline.datasets.problems import DatasetError, error, warning
from pipeline.datasets.source import Entry, Source, complain_of_id, find_pictures, normalise
from pipeline.datasets.tables import Row, names_in, read_classes, read_labels, split_cell

SEMANTIC = ("masks/semantic", "masks")
INSTANCES = "masks/instances"


def read(root: Path) -> Source:
    """Read images/**, labels.csv (`image,classes[,split]`), classes.txt (optional) and masks/ (optional,
    class number + 1).

    An id is the path below images/ without suffix. Raises DatasetError when labels.csv or classes.txt cannot
    be used at all.
    """
    found, problems = find_pictures(root, "images")
    table = root / "labels.csv"
    rows = read_labels(table)
    listed = root / "classes.txt"
    classes = read_classes(listed) if listed.is_file() else names_in(rows)
    if not classes:
        raise DatasetError(error(table, "names no class", "write class names into the column classes"))
    source = Source(root, classes, problems=problems)
    seen = set()
    for row in rows:
        entry = _entry(root, row, found, classes)
        seen.add(entry.id)
        source.entries.append(entry)
    for name in sorted(found.keys() - seen):
        source.problems.append(warning(root / found[name], f"has no row in {table.name}", "it is left out"))
    return source


def _entry(root: Path, row: Row, found: dict[str, str], classes: tuple[str, ...]) -> Entry:
    name = _identify(row.image, found)
    path = found.get(name, f"images/{row.image}")
    semantic, instances = (None, None) if complain_of_id(name) else _masks(root, name)
    return Entry(name, path, row.where, split_cell(row.cell, classes), row.split, semantic, instances)


def _identify(image: str, found: dict[str, str]) -> str:
    """The id of a picture as a row writes it: with or without suffix, with or without `images/`."""
    name = normalise(image)
    for candidate in (name, name.removeprefix("images/")):
        stem = candidate.rpartition(".")[0]
        if candidate in found:
            return candidate
        if stem in found and normalise(found[stem]).endswith(candidate):
            return stem
    return name


def _masks(root: Path, name: str) -> tuple[str | None, str | None]:
    """Mask files of a picture, masks/semantic/<id>.png or masks/<id>.png, and masks/instances/<id>.png."""
    semantic = next(
        (f"{folder}/{name}.png" for folder in SEMANTIC if (root / folder / f"{name}.png").is_file()), None
    )
    instances = f"{INSTANCES}/{name}.png"
    return semantic, instances if semantic and (root / instances).is_file() else None
