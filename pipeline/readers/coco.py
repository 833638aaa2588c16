"""COCO's layout: one JSON of instances per split, with the tags and outlines of all its images.

Lin et al., Microsoft COCO: Common Objects in Context, 2014. Tools write it in many notations: ids
and flags as text or floats, sizes missing, polygons as lists of points.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.data.images import DatasetError, error, warning
from pipeline.readers.outlines import MaskRenderer, Outline, clean, whole
from pipeline.readers.source import (
    DO_COPY,
    OUTSIDE,
    Entry,
    Files,
    Names,
    Source,
    leaves,
    no_class,
    normalize,
    require_folder,
    without_suffix,
)
from pipeline.readers.tables import LABELS, Row, read_json, read_labels, split_cell

Json = dict[str, Any]
Key = int | str
DO_EXPORT = "export the file again"


def read(root: Path, annotations: Mapping[str, tuple[str, str]]) -> Source:
    """Read images, tags (the categories of annotations that are not crowds) and outlines.

    Args:
        root: the source folder.
        annotations: split -> (JSON, image folder), both relative to the root. A lone split `train`
            leaves the choice of held-out images to the fraction `val`.

    Raises:
        DatasetError: a JSON as a whole is unusable.
    """
    for file, _ in annotations.values():
        if leaves(root, file):
            raise DatasetError(error(root / file, OUTSIDE, DO_COPY))
    contents = [(root / file, load(root / file)) for file, _ in annotations.values()]
    source = Source(root)
    names = _read_categories(source, contents)
    for (split, (_, folder)), (path, content) in zip(annotations.items(), contents, strict=True):
        require_folder(root, folder)
        fixed = None if list(annotations) == ["train"] else split
        images = Files(root, folder)
        source.problems += images.problems
        _Reader(source, path, images, fixed, names).read(content)
    source.separate_ids()
    if (root / LABELS).is_file():
        _apply_table(source)
    return source


def _apply_table(source: Source) -> None:
    """Replace tags and splits by those of labels.csv, as an object may be without annotation."""
    numbers = {without_suffix(entry.path): k for k, entry in enumerate(source.entries)}
    places = Names(numbers | {entry.id: k for k, entry in enumerate(source.entries)})
    seen, unlisted = set[int](), list[Row]()
    for row in read_labels(source.root / LABELS):
        if (k := places.find(row.image)) is None:
            unlisted.append(row)
            continue
        if k in seen:
            do = "keep one of the two"
            source.problems.append(error(row.where, f"{row.image!r} already has a row", do))
        seen.add(k)
        entry = source.entries[k]
        tags = source.known_classes(split_cell(row.cell, source.classes), row.where)
        source.entries[k] = replace(entry, tags=tags, split=row.split or entry.split)
    if unlisted:
        example, do = unlisted[0].image, "they are left out; check the names if they should be used"
        what = f"rows of images that no annotation file lists: {len(unlisted)}, such as {example!r}"
        source.problems.append(warning(source.root / LABELS, what, do))


def load(path: Path) -> Json:
    """Read a JSON of COCO instances; raise DatasetError if it is none."""
    content = read_json(path, "put the file there or name another one in dataset.coco")
    for key in ("images", "annotations", "categories"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DatasetError(error(path, f"has no list {key!r}", "use a file of COCO instances"))
    return content


def _read_categories(source: Source, files: Sequence[tuple[Path, Json]]) -> dict[Key, str]:
    """Set the classes of the source in the order of their ids; return category id -> name.

    A category that is merely the supercategory of others is no class: Roboflow writes one for the
    whole project.
    """
    names: dict[Key, str] = {}
    parents: dict[str, Path] = {}
    used: set[Key | None] = set()
    for path, content in files:
        for number, name in categories(path, content):
            if names.setdefault(number, name) != name:
                what = f"calls category {number} both {names[number]!r} and {name!r}"
                do = "use one name per id in all files"
                raise DatasetError(error(path, what, do))
        for row in content["categories"]:
            parent = row.get("supercategory")
            if isinstance(parent, str) and normalize(parent.strip()) != normalize(row["name"]):
                parents[normalize(parent.strip())] = path
        used.update(key(row.get("category_id")) for row in content["annotations"])
    for number, name in list(names.items()):
        if name in parents and number not in used:
            del names[number]
            what = f"category {name!r} is only the supercategory of others and has no annotation"
            source.problems.append(warning(parents[name], what, "it is left out of the classes"))
    ordered = [names[number] for number in sorted(names, key=lambda key: (str(key) == key, key))]
    for name, count in Counter(ordered).items():
        if count > 1:
            what = f"category {name!r} has {count} ids"
            source.problems.append(warning(files[0][0], what, "they are read as one class"))
    source.names = dict(enumerate(dict.fromkeys(ordered), start=1))
    return names


def categories(path: Path, content: Json) -> list[tuple[Key, str]]:
    """Return the id and the name of each category."""
    pairs = []
    for row in content["categories"]:
        number, name = key(row.get("id")), row.get("name")
        if number is None or not isinstance(name, str):
            what = f"category {row.get('id')!r} lacks an id or a name"
            raise DatasetError(error(path, what, "give each an id and a name"))
        pairs.append((number, normalize(name.strip())))
    return pairs


def key(value: Any) -> Key | None:
    """Return an id in one notation for all: a whole number if it is one, else text, else None."""
    number = whole(value)
    return value if number is None and isinstance(value, str) else number


def _flag(value: Any) -> bool:
    """Return whether a flag is set: 1, 1.0, "1", true, "true"."""
    if isinstance(value, str) and value.strip().lower() in ("true", "yes"):
        return True
    return bool(whole(value))


def _size(row: Json) -> tuple[int, int] | None:
    """Return (H, W) of an image as its row gives it, None if it gives none."""
    try:
        height, width = (round(float(row[key])) for key in ("height", "width"))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


@dataclass(slots=True)
class _Reader:
    """Adds the images of one JSON at `path` to the source.

    split: None leaves it to the fraction `val`; names: category id -> name; degenerate:
    annotations with polygons that were left out.
    """

    source: Source
    path: Path
    files: Files
    split: str | None
    names: Mapping[Key, str]
    degenerate: list[Any] = field(default_factory=list)

    def read(self, content: Json) -> None:
        """Add the images and report those that cannot be used."""
        annotations = self._group(content)
        seen: set[Key] = set()
        outlined = any(_is_outlined(row) for row in content["annotations"])
        for row in content["images"]:
            number = key(row.get("id"))
            if number is None or not isinstance(row.get("file_name"), str):
                self._report(f"image {row.get('id')!r} lacks a valid id or file_name", DO_EXPORT)
            elif number in seen:
                self._report(f"two images have id {number}", "make the ids unique")
            else:
                seen.add(number)
                entry = self._entry(number, row, annotations.pop(number, []), outlined)
                self.source.entries.append(entry)
        for number in sorted(annotations.keys() - seen, key=str):
            self._report(f"annotations of image {number!r}, which is not listed", DO_EXPORT)
        if self.degenerate:
            count, example = len(self.degenerate), self.degenerate[0]
            what = f"polygons of fewer than three points: {count}, such as in annotation {example}"
            self.source.problems.append(warning(self.path, what, "they are left out of the masks"))

    def _group(self, content: Json) -> dict[Key, list[Json]]:
        """Return the annotations of known categories by image."""
        groups = defaultdict(list)
        for row in content["annotations"]:
            category = key(row.get("category_id"))
            if category in self.names:
                image = key(row.get("image_id"))
                groups[str(row.get("image_id")) if image is None else image].append(row)
            else:
                what = f"annotation {row.get('id')!r} has category {row.get('category_id')!r}"
                known = ", ".join(map(str, self.names))
                self._report(f"{what}, which is not a class", f"the classes are {known}")
        return dict(groups)

    def _entry(self, number: Key, row: Json, annotations: Sequence[Json], outlined: bool) -> Entry:
        where = f"{self.path}, image {number}"
        outlines = [self._outline(item, where) for item in annotations]
        complete = outlined and all(outline.segmentation for outline in outlines)
        name = self.files.id(row["file_name"], anywhere=True)
        known = name in self.files.found
        file = self.files.found[name] if known else f"{self.files.folder}/{row['file_name']}"
        shown = [item for item in annotations if not is_crowd(item)]
        tags = {self.names[key(item["category_id"])] for item in shown}  # type: ignore[index]
        return Entry(
            id=name if known else normalize(without_suffix(row["file_name"])),
            path=file,
            where=where,
            tags=frozenset(tag for tag in tags if no_class(tag) is None),
            split=self.split,
            render=MaskRenderer(_size(row), tuple(outlines)) if complete else None,
        )

    def _outline(self, item: Json, where: str) -> Outline:
        """Return the outline of an annotation, without segmentation if it has no area."""
        kept = None
        try:
            kept, left_out = clean(item.get("segmentation"))
            self.degenerate += [item.get("id")] * left_out
        except ValueError as problem:
            what = f"annotation {item.get('id')!r}: {problem}"
            self.source.problems.append(error(where, what, "fix or delete the annotation"))
        name = self.names[key(item["category_id"])]  # type: ignore[index]
        return Outline(name, kept, is_crowd(item))

    def _report(self, what: str, do: str) -> None:
        self.source.problems.append(error(self.path, what, do))


def _is_outlined(item: Json) -> bool:
    """Return whether an annotation has an outline; some tools write [[]] for a box alone."""
    segmentation = item.get("segmentation")
    return any(segmentation) if isinstance(segmentation, list) else bool(segmentation)


def is_crowd(item: Json) -> bool:
    """Return whether an annotation is of a crowd, or of an area to ignore.

    CVAT sets `iscrowd` for every mask that somebody painted, as it writes it as run lengths; its
    files are known by the attribute `occluded` of every annotation.
    """
    attributes = item.get("attributes")
    painted = isinstance(attributes, dict) and "occluded" in attributes
    return (_flag(item.get("iscrowd")) and not painted) or _flag(item.get("ignore"))
