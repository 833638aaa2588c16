"""COCO's layout: one JSON of instances per split, with the tags and outlines of all its images.

Lin et al., Microsoft COCO: Common Objects in Context, 2014. Outlines (polygons or run lengths, RLE)
are rasterized with the COCO API.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipeline.core.artifacts import IGNORE
from pipeline.data.images import DatasetError, error, read_bytes
from pipeline.readers.source import (
    DO_COPY,
    OUTSIDE,
    Entry,
    Source,
    leaves,
    normalize,
    require_folder,
    without_suffix,
)

Json = dict[str, Any]
DO_EXPORT = "export the file again"


@dataclass(frozen=True, slots=True)
class Outline:
    """One annotation: class name, `segmentation` as in the JSON, and whether it is a crowd."""

    name: str
    segmentation: Any
    crowd: bool


@dataclass(frozen=True, slots=True)
class MaskRenderer:
    """Renders the masks of one image of `size` (H, W) from its outlines."""

    size: tuple[int, int]
    outlines: tuple[Outline, ...]

    def __call__(
        self, labels: Mapping[str, int], size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Render label map uint8 [H,W] and instance ids uint16 [H,W].

        Crowds come first, as void; then objects from large to small, so that the smaller one is in
        front. Classes without a label are background, even in front of others. Raises ValueError if
        the decoded image has another `size` (H, W), or if an outline is invalid.
        """
        if size != self.size:
            here, actual = f"{self.size[1]} x {self.size[0]}", f"{size[1]} x {size[0]}"
            raise ValueError(
                f"outlines for an image of {here} pixels, but the file has {actual} (upright)"
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
    """Crop a mask to its bounding box, as hundreds of whole masks of a large image fill memory."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return (slice(0, 0), slice(0, 0)), mask[:0, :0]
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return window, mask[window].copy()


def rasterize(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Rasterize COCO polygons [[x, y, ...], ...] or RLE {size, counts} to a bool mask [H,W].

    Raises ValueError that says what is wrong with them.
    """
    if isinstance(segmentation, Mapping):
        return _from_rle(segmentation, size)
    if isinstance(segmentation, list) and segmentation:
        return _from_polygons(segmentation, size)
    raise ValueError("the segmentation is neither polygons nor RLE")


def _from_polygons(polygons: Sequence[Any], size: tuple[int, int]) -> np.ndarray:
    from faster_coco_eval.core import mask as coco_mask

    height, width = size
    for polygon in polygons:
        try:
            points = np.asarray(polygon, np.float64)
        except (TypeError, ValueError):
            raise ValueError("a polygon contains something other than numbers") from None
        if points.ndim != 1 or len(points) < 6 or len(points) % 2:
            raise ValueError("a polygon needs a flat list x, y, x, y, ... of at least three points")
        distance = np.abs(points.reshape(-1, 2) - (width / 2, height / 2))
        # The coder's memory grows with the distance, and the outline is that of another image.
        if not (np.isfinite(distance).all() and (distance <= (width, height)).all()):
            raise ValueError("a polygon lies far outside the image")
    codes = coco_mask.frPyObjects(list(polygons), height, width)
    return coco_mask.decode(coco_mask.merge(codes)).astype(bool)


def _from_rle(rle: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    from faster_coco_eval.core import mask as coco_mask

    if rle.get("size") not in (list(size), size):
        raise ValueError(
            f"RLE of size {rle.get('size')} on an image of {list(size)} (height, width)"
        )
    code = {"size": list(size), "counts": rle.get("counts")}
    try:
        if isinstance(code["counts"], list):
            code = coco_mask.frPyObjects(code, *size)
        return coco_mask.decode(code).astype(bool)
    except (KeyError, RuntimeError, TypeError, ValueError):
        raise ValueError(
            f"the RLE is damaged, or its counts do not add up to {size[0] * size[1]} pixels"
        ) from None


def read(root: Path, annotations: Mapping[str, tuple[str, str]] | None = None) -> Source:
    """Read images, tags (the categories of annotations that are not crowds) and outlines.

    Args:
        root: the source folder.
        annotations: split -> (JSON, image folder), both relative to the root; empty names are
            skipped. By default annotations/instances_train*.json and instances_val*.json with the
            folders of the same name. A lone split `train` leaves the choice of held-out images to
            the fraction `val`.

    Raises:
        DatasetError: a JSON as a whole is unusable.
    """
    named = {split: pair for split, pair in (annotations or {}).items() if pair[0]} or _guess(root)
    for file, _ in named.values():
        if leaves(root, file):
            raise DatasetError(error(root / file, OUTSIDE, DO_COPY))
    contents = {split: _load(root / path) for split, (path, _) in named.items()}
    names: dict[int, str] = {}
    for split, (file, folder) in named.items():
        require_folder(root, folder)
        for number, name in _categories(root / file, contents[split]).items():
            if names.setdefault(number, name) != name:
                what = f"calls category {number} {name!r}, another file {names[number]!r}"
                raise DatasetError(error(root / file, what, "use files with the same categories"))
    source = Source(root, tuple(names[number] for number in sorted(names)))
    for split, (file, folder) in named.items():
        fixed = None if list(named) == ["train"] else split
        _Reader(source, root / file, folder, fixed, names).read(contents[split])
    return source


def _guess(root: Path) -> dict[str, tuple[str, str]]:
    """Return (JSON, image folder) by split for the usual names."""
    named = {}
    for split in ("train", "val"):
        for path in sorted((root / "annotations").glob(f"instances_{split}*.json"))[:1]:
            stem = path.stem.removeprefix("instances_")
            folders = (stem, f"images/{stem}", split, f"images/{split}", "images")
            existing = [folder for folder in folders if (root / folder).is_dir()]
            named[split] = (path.relative_to(root).as_posix(), [*existing, stem][0])
    if "train" not in named:
        what = "has no annotations/instances_train*.json"
        raise DatasetError(error(root, what, "name your file in dataset.coco.train"))
    return named


def _load(path: Path) -> Json:
    data = read_bytes(path, "put the file there or name another one in dataset.coco")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as problem:
        do = "download or export it again"
        raise DatasetError(error(path, f"is not valid JSON ({problem})", do)) from problem
    for key in ("images", "annotations", "categories"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DatasetError(error(path, f"has no list {key!r}", "use a file of COCO instances"))
    return content


def _categories(path: Path, content: Json) -> dict[int, str]:
    """Return the category names by id."""
    try:
        pairs = [(int(row["id"]), row["name"]) for row in content["categories"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        pairs = [(0, None)]
    if not all(isinstance(name, str) for _, name in pairs):
        what = "has categories without id or name"
        raise DatasetError(error(path, what, "give each an id and a name"))
    names = dict(pairs)
    if len(set(names.values())) < len(content["categories"]):
        what = "has categories with equal ids or names"
        raise DatasetError(error(path, what, "make them unique"))
    return names


@dataclass(frozen=True, slots=True)
class _Reader:
    """Adds the images of one JSON at `path` to the source.

    folder: of its images; split: None leaves it to the fraction `val`; names: category id -> name.
    """

    source: Source
    path: Path
    folder: str
    split: str | None
    names: Mapping[int, str]

    def read(self, content: Json) -> None:
        """Add the images and report those that cannot be used."""
        annotations = self._group(content)
        seen = set()
        outlined = any(row.get("segmentation") for row in content["annotations"])
        for row in content["images"]:
            if not _is_complete(row):
                what = f"image {row.get('id')!r} lacks a valid id, file_name, height or width"
                self._report(what, DO_EXPORT)
            elif row["id"] in seen:
                self._report(f"two images have id {row['id']}", "make the ids unique")
            else:
                seen.add(row["id"])
                entry = self._entry(row, annotations.pop(row["id"], []), outlined)
                self.source.entries.append(entry)
        for number in sorted(annotations.keys() - seen, key=str):
            self._report(f"annotations of image {number!r}, which is not listed", DO_EXPORT)

    def _group(self, content: Json) -> dict[int | str, list[Json]]:
        """Return the annotations of known categories by image."""
        groups = defaultdict(list)
        for row in content["annotations"]:
            category, image = row.get("category_id"), row.get("image_id")
            if isinstance(category, int) and category in self.names:
                groups[image if isinstance(image, int) else str(image)].append(row)
            else:
                what = (
                    f"annotation {row.get('id')!r} has category {category!r}, which is not a class"
                )
                self._report(what, f"the classes are {', '.join(map(str, sorted(self.names)))}")
        return dict(groups)

    def _entry(self, row: Json, annotations: Sequence[Json], outlined: bool) -> Entry:
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
            render=MaskRenderer(size, tuple(outlines)) if complete else None,
        )

    def _report(self, what: str, do: str) -> None:
        self.source.problems.append(error(self.path, what, do))


def _is_complete(row: Json) -> bool:
    """Return whether a row of `images` has id, name and size of the right types."""
    return (
        all(isinstance(row.get(key), int) for key in ("height", "width"))
        and isinstance(row.get("id"), int | str)
        and isinstance(row.get("file_name"), str)
    )
