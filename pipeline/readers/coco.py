"""COCO's layout: one json of instances per split, with the tags and outlines of all its images.

Outlines as COCO writes them, polygons and run lengths, painted into masks.

Lin et al., Microsoft COCO: Common Objects in Context, 2014; the format of run lengths is that of
the COCO API.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipeline.core.artifacts import IGNORE
from pipeline.data.images import read_bytes
from pipeline.data.problems import DatasetError, error
from pipeline.readers.source import (
    OUTSIDE,
    Entry,
    Source,
    expect_folder,
    leaves,
    normalize,
    without_suffix,
)


@dataclass(frozen=True, slots=True)
class Outline:
    """One annotation: class name, `segmentation` as in the json, and whether it is a crowd, which
    is no single object.
    """

    name: str
    segmentation: Any
    crowd: bool


@dataclass(frozen=True, slots=True)
class Painting:
    """The outlines of one image of `size` (height, width); called with the labels in use it paints
    the masks.
    """

    size: tuple[int, int]
    outlines: tuple[Outline, ...]

    def __call__(
        self, labels: Mapping[str, int], size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Label map uint8 [H,W] and instance ids uint16 [H,W] of the image, whose file has `size`.

        Crowds come first, as void; then the objects from large to small, so that the smaller one
        lies on top. Classes without a label are background, also where they cover others. Raises
        ValueError for another size and for bad outlines.
        """
        if size != self.size:
            here, there = f"{self.size[1]} x {self.size[0]}", f"{size[1]} x {size[0]}"
            raise ValueError(
                f"outlines for an image of {here} pixels, but the file has {there} (upright)"
            )
        semantic, instances = np.zeros(size, np.uint8), np.zeros(size, np.uint16)
        layers = [
            (outline, *_crop(rasterize(outline.segmentation, size))) for outline in self.outlines
        ]
        layers.sort(key=lambda layer: (not layer[0].crowd, -int(layer[2].sum())))
        objects = 0
        for outline, window, mask in layers:
            label = labels.get(outline.name, 0)
            if outline.crowd:
                semantic[window][mask] = IGNORE if label else 0
                continue
            objects += 1
            semantic[window][mask] = label
            instances[window][mask] = objects if label else 0
        return semantic, instances


def _crop(mask: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    """The box around a mask and the mask inside it: hundreds of whole ones of a large image fill
    the memory.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return (slice(0, 0), slice(0, 0)), mask[:0, :0]
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return window, mask[window].copy()


def rasterize(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """A bool mask [H,W] of COCO polygons [[x, y, ...], ...] or run lengths {size, counts}.

    Raises ValueError that says what is wrong with them.
    """
    if isinstance(segmentation, Mapping):
        return _from_runs(segmentation, size)
    if isinstance(segmentation, list) and segmentation:
        return _from_polygons(segmentation, size)
    raise ValueError("the segmentation is neither polygons nor run lengths")


def _from_polygons(polygons: Sequence[Any], size: tuple[int, int]) -> np.ndarray:
    from faster_coco_eval.core import mask as coder

    height, width = size
    for polygon in polygons:
        try:
            points = np.asarray(polygon, np.float64)
        except (TypeError, ValueError):
            raise ValueError("a polygon holds something else than numbers") from None
        if points.ndim != 1 or len(points) < 6 or len(points) % 2:
            raise ValueError(
                "a polygon needs at least three points, as a flat list x, y, x, y, ..."
            )
        xy = points.reshape(-1, 2)
        # Far points cost memory in proportion, and mean that the outline belongs to another image.
        if not (
            np.isfinite(xy).all()
            and (np.abs(xy - (width / 2, height / 2)) <= (width, height)).all()
        ):
            raise ValueError("a polygon lies far outside the image")
    runs = coder.frPyObjects(list(polygons), height, width)
    return coder.decode(coder.merge(runs)).astype(bool)


def _from_runs(runs: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Runs of 0 and 1 in turn, column by column."""
    if runs.get("size") not in (list(size), size):
        raise ValueError(
            f"run lengths of size {runs.get('size')} on an image of {list(size)} (height, width)"
        )
    counts = runs.get("counts")
    if isinstance(counts, str):
        counts = decode_counts(counts)
    if not isinstance(counts, list) or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise ValueError("the counts of run lengths are no list of numbers from 0 and no string")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"run lengths add up to {sum(counts)}, not to {size[0] * size[1]} pixels")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(flat.reshape(size[1], size[0]).T)


def decode_counts(text: str) -> list[int]:
    """The counts in a compressed string; raises ValueError for letters that cannot occur or an end
    in mid-number.

    A number is written in groups of five bits, lowest first, as letters from '0' on; bit 5 says
    that more follow, bit 4 of the last group is the sign. From the fourth number on it is the
    difference to the one two before.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        group = ord(letter) - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError("the string of run lengths is damaged")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("the string of run lengths ends in mid-number")
    return counts


Json = dict[str, Any]
MAX_JSON = 4 * 2**30
"""Largest json that is read, in bytes; that of COCO's train2017 has a ninth of it."""


def read(root: Path, annotations: Mapping[str, tuple[str, str]] | None = None) -> Source:
    """Read split -> (json, folder of the images), both relative to the root; empty names do not
    count.

    By default annotations/instances_train*.json and instances_val*.json with the folders named
    alike. A lone split `train` leaves the choice of held-out images to the share `val`. Tags are
    the categories of the annotations that are no crowds. Raises DatasetError where a json as a
    whole cannot be used.
    """
    named = {split: pair for split, pair in (annotations or {}).items() if pair[0]} or _guess(root)
    for file, _ in named.values():
        if leaves(root, file):
            raise DatasetError(
                error(root / file, OUTSIDE, "copy it into the folder, or take a hard link")
            )
    files = {
        split: (root / path, _load(root / path), folder) for split, (path, folder) in named.items()
    }
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
        raise DatasetError(
            error(path, f"is no json ({problem})", "download or export it again")
        ) from problem
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
        raise DatasetError(
            error(path, "has categories without id or name", "give each an id and a name")
        )
    names = dict(pairs)
    if len(set(names.values())) < len(content["categories"]):
        raise DatasetError(error(path, "has categories of equal id or name", "give each its own"))
    return names


class _Reading:
    """One json on its way into the source."""

    def __init__(
        self, source: Source, path: Path, folder: str, split: str | None, names: Mapping[int, str]
    ) -> None:
        self.source, self.path, self.folder, self.split, self.names = (
            source,
            path,
            folder,
            split,
            names,
        )

    def read(self, content: Json) -> None:
        """Add the images to the source, and complain about those that cannot be used."""
        rows = self._group(content)
        seen = set()
        outlined = any(row.get("segmentation") for row in content["annotations"])
        for row in content["images"]:
            if not _is_whole(row):
                what = f"image {row.get('id')!r} lacks a sound id, file_name, height or width"
                self._complain(what, "export the file again")
            elif row["id"] in seen:
                self._complain(f"two images of id {row['id']}", "give each its own")
            else:
                seen.add(row["id"])
                self.source.entries.append(self._entry(row, rows.pop(row["id"], []), outlined))
        for number in sorted(rows.keys() - seen, key=str):
            self._complain(
                f"annotations of image {number!r}, which is not listed", "export the file again"
            )

    def _group(self, content: Json) -> dict[int | str, list[Json]]:
        """Sound annotations by image."""
        groups = defaultdict(list)
        for row in content["annotations"]:
            category = row.get("category_id")
            if not isinstance(category, int) or category not in self.names:
                what = (
                    f"annotation {row.get('id')!r} is of category {category!r}, which is no class"
                )
                self._complain(what, f"valid are {', '.join(map(str, sorted(self.names)))}")
            else:
                groups[_key(row.get("image_id"))].append(row)
        return dict(groups)

    def _entry(self, row: Json, annotations: list[Json], outlined: bool) -> Entry:
        file, size = row["file_name"], (row["height"], row["width"])
        outlines = [
            Outline(
                self.names[item["category_id"]], item.get("segmentation"), bool(item.get("iscrowd"))
            )
            for item in annotations
        ]
        complete = outlined and all(outline.segmentation for outline in outlines)
        return Entry(
            id=normalize(without_suffix(file)),
            path=PurePosixPath(self.folder, file).as_posix(),
            where=f"{self.path}, image {row['id']}",
            tags=frozenset(outline.name for outline in outlines if not outline.crowd),
            split=self.split,
            render=Painting(size, tuple(outlines)) if complete else None,
        )

    def _complain(self, what: str, do: str) -> None:
        self.source.problems.append(error(self.path, what, do))


def _key(number: object) -> int | str:
    """The id of an image as a key; whatever else a damaged file holds there as its text."""
    return number if isinstance(number, int) else str(number)


def _is_whole(row: Json) -> bool:
    """Whether a row of `images` has id, name and size of the right kind."""
    numbers = all(isinstance(row.get(key), int) for key in ("height", "width"))
    return (
        numbers and isinstance(row.get("id"), int | str) and isinstance(row.get("file_name"), str)
    )
