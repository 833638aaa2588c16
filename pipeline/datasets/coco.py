"""COCO's layout: one json of instances per split, with the tags and outlines of all its pictures."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.datasets.images import read_bytes
from pipeline.datasets.outlines import Outline, Painting
from pipeline.datasets.problems import DatasetError, error
from pipeline.datasets.source import OUTSIDE, Entry, Source, expect_folder, leaves, normalise, without_suffix

Json = dict[str, Any]
MAX_JSON = 4 * 2**30
"""Largest json that is read, in bytes; that of COCO's train2017 has a ninth of it."""


def read(root: Path, annotations: Mapping[str, tuple[str, str]] | None = None) -> Source:
    """Read split -> (json, folder of the pictures), both relative to the root; empty names do not count.

    By default annotations/instances_train*.json and instances_val*.json with the folders named alike. A lone
    split `train` leaves the choice of held-out pictures to the share `val`. Tags are the categories of the
    annotations that are no crowds. Raises DatasetError where a json as a whole cannot be used.
    """
    named = {split: pair for split, pair in (annotations or {}).items() if pair[0]} or _guess(root)
    for file, _ in named.values():
        if leaves(root, file):
            raise DatasetError(error(root / file, OUTSIDE, "copy it into the folder, or take a hard link"))
    files = {split: (root / path, _load(root / path), folder) for split, (path, folder) in named.items()}
    for _, _, folder in files.values():
        expect_folder(root, folder)
    names: dict[int, str] = {}
    for path, content, _ in files.values():
        for number, name in _categories(path, content).items():
            if names.setdefault(number, name) != name:
                what = f"calls category {number} {name!r}, another file {names[number]!r}"
                raise DatasetError(error(path, what, "use files with the same categories"))
    source = Source(root, tuple(names[number] for number in sorted(names)))
    for split, (path, content, folder) in files.items():
        fixed = None if list(files) == ["train"] else split
        _Reading(source, path, folder, fixed, names).read(content)
    return source


def _guess(root: Path) -> dict[str, tuple[str, str]]:
    named = {}
    for split in ("train", "val"):
        for path in sorted((root / "annotations").glob(f"instances_{split}*.json"))[:1]:
            alike = path.stem.removeprefix("instances_")
            folders = (alike, f"images/{alike}", split, f"images/{split}", "images")
            there = [folder for folder in folders if (root / folder).is_dir()]
            named[split] = (path.relative_to(root).as_posix(), there[0] if there else alike)
    if "train" not in named:
        what = "has no annotations/instances_train*.json"
        raise DatasetError(error(root, what, "name your file in dataset.coco.train"))
    return named


def _load(path: Path) -> Json:
    data = read_bytes(path, "put the file there or name another in dataset.coco", MAX_JSON)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise DatasetError(error(path, f"is no json ({problem})", "download or export it anew")) from problem
    for key in ("images", "annotations", "categories"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DatasetError(error(path, f"has no list {key!r}", "use a file of COCO instances"))
    return content


def _categories(path: Path, content: Json) -> dict[int, str]:
    try:
        pairs = [(int(row["id"]), row["name"]) for row in content["categories"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        pairs = [(0, None)]
    if not all(isinstance(name, str) for _, name in pairs):
        raise DatasetError(error(path, "has categories without id or name", "give each an id and a name"))
    names = dict(pairs)
    if len(set(names.values())) < len(content["categories"]):
        raise DatasetError(error(path, "has categories of equal id or name", "give each its own"))
    return names


class _Reading:
    """One json on its way into the source."""

    def __init__(
        self, source: Source, path: Path, folder: str, split: str | None, names: Mapping[int, str]
    ) -> None:
        self.source, self.path, self.folder, self.split, self.names = source, path, folder, split, names

    def read(self, content: Json) -> None:
        """Add the pictures to the source, and complain about those that cannot be used."""
        rows = self._group(content)
        seen = set()
        outlined = any(row.get("segmentation") for row in content["annotations"])
        for row in content["images"]:
            if not _is_whole(row):
                what = f"picture {row.get('id')!r} lacks a sound id, file_name, height or width"
                self._complain(what, "export the file anew")
            elif row["id"] in seen:
                self._complain(f"two pictures of id {row['id']}", "give each its own")
            else:
                seen.add(row["id"])
                self.source.entries.append(self._entry(row, rows.pop(row["id"], []), outlined))
        for number in sorted(rows.keys() - seen, key=str):
            self._complain(f"annotations of picture {number!r}, which is not listed", "export the file anew")

    def _group(self, content: Json) -> dict[int | str, list[Json]]:
        """Sound annotations by picture."""
        groups = defaultdict(list)
        for row in content["annotations"]:
            category = row.get("category_id")
            if not isinstance(category, int) or category not in self.names:
                what = f"annotation {row.get('id')!r} is of category {category!r}, which is no class"
                self._complain(what, f"valid are {', '.join(map(str, sorted(self.names)))}")
            else:
                groups[_key(row.get("image_id"))].append(row)
        return dict(groups)

    def _entry(self, row: Json, annotations: list[Json], outlined: bool) -> Entry:
        file, size = row["file_name"], (row["height"], row["width"])
        outlines = [
            Outline(self.names[item["category_id"]], item.get("segmentation"), bool(item.get("iscrowd")))
            for item in annotations
        ]
        complete = outlined and all(outline.segmentation for outline in outlines)
        return Entry(
            id=normalise(without_suffix(file)),
            path=PurePosixPath(self.folder, file).as_posix(),
            where=f"{self.path}, picture {row['id']}",
            tags=frozenset(outline.name for outline in outlines if not outline.crowd),
            split=self.split,
            render=Painting(size, tuple(outlines)) if complete else None,
        )

    def _complain(self, what: str, do: str) -> None:
        self.source.problems.append(error(self.path, what, do))


def _key(number: object) -> int | str:
    """The id of a picture as a key; whatever else a damaged file holds there as its text."""
    return number if isinstance(number, int) else str(number)


def _is_whole(row: Json) -> bool:
    """Whether a row of `images` has id, name and size of the right kind."""
    numbers = all(isinstance(row.get(key), int) for key in ("height", "width"))
    return numbers and isinstance(row.get("id"), int | str) and isinstance(row.get("file_name"), str)
