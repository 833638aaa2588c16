"""LabelMe: a JSON of polygons next to each image, written and read back exactly.

Polygons run along the centers of the outermost pixels of an object. Those of one object share a
group; its holes are polygons of LabelMe's label `_background_` in it, along the pixels around them.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.core.resume import write_atomically
from pipeline.data.images import DatasetError, error
from pipeline.export.images import ExportImages, Target
from pipeline.readers.outlines import MaskRenderer, Outline, whole
from pipeline.readers.source import no_class, normalize
from pipeline.readers.tables import read_json

HOLE = "_background_"
DO_SAVE = "draw polygons in LabelMe and save it again"
Polygon = tuple[bool, Any]
"""Whether it is a hole, and its points [n,2] (x, y)."""


def export(images: ExportImages, target: Target) -> None:
    """Write image files, each with its JSON, to images/."""
    for image in images:
        file = f"images/{image.name}{target.files[image.name].suffix}"
        target.place(image.name, file)
        shapes = [
            _shape(HOLE if hole else target.classes[c], points, k)
            for k, (mask, c) in enumerate(zip(image.masks, image.classes, strict=True), start=1)
            for hole, points in polygons(mask)
        ]
        content: dict[str, Any] = {
            "version": "5.0.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(file).name,
            "imageData": None,
            "imageHeight": image.size[0],
            "imageWidth": image.size[1],
        }
        path = target.folder / f"images/{image.name}.json"
        write_atomically(path, (json.dumps(content, ensure_ascii=False) + "\n").encode())


def _shape(label: str, points: np.ndarray, group: int) -> dict[str, Any]:
    return {
        "label": label,
        "points": points.tolist(),
        "group_id": group,
        "shape_type": "polygon",
        "flags": {},
    }


def polygons(mask: np.ndarray) -> list[Polygon]:
    """Return the outlines of the parts of a mask bool [H,W] and of their holes, larger ones first,
    so that what lies in a hole is drawn after it.
    """
    contours, hierarchy = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    found = list[tuple[int, bool, np.ndarray]]()
    for k, contour in enumerate(contours):
        points = np.concatenate([contour[:, 0], *[contour[-1]] * max(0, 3 - len(contour))])
        area = int(rasterize([(False, points)], mask.shape).sum())
        found.append((-area, bool(hierarchy[0, k, 3] >= 0), points))
    return [(hole, points) for _, hole, points in sorted(found, key=lambda piece: piece[:2])]


def rasterize(shape: list[Polygon], size: tuple[int, ...]) -> np.ndarray:
    """Return the mask bool [H,W] of polygons drawn one after the other; a hole is what lies inside
    of its outline.
    """
    mask = np.zeros(size, np.uint8)
    for hole, points in shape:
        # OpenCV wants numbers of 32 bits
        corners = [np.clip(np.rint(points), -1, size[::-1]).astype(np.int32)]
        cv2.fillPoly(mask, corners, 0 if hole else 1)
        if hole:
            cv2.polylines(mask, corners, isClosed=True, color=1)
    return mask.astype(bool)


def find(root: Path) -> list[Path]:
    """Return the JSON files of a folder if one of them is LabelMe's."""
    paths = sorted(root.rglob("*.json"))
    return paths if any(b'"shapes"' in path.read_bytes() for path in paths) else []


def read(path: Path) -> MaskRenderer:
    """Read the masks of an image; raise DatasetError if the file is not LabelMe's, or has other
    shapes than polygons.
    """
    content = read_json(path)
    try:
        size = whole(content["imageHeight"]), whole(content["imageWidth"])
        drawn = tuple(_outlines(content["shapes"]))
        return MaskRenderer(size, drawn, rasterize)  # type: ignore[arg-type]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as problem:
        raise DatasetError(error(path, f"cannot be used ({problem!r})", DO_SAVE)) from None


def _outlines(shapes: list[dict[str, Any]]) -> Iterator[Outline]:
    """Yield the objects: polygons of one label and group are one, less the holes of the group."""
    rows = [_row(k, shape) for k, shape in enumerate(shapes)]
    objects: dict[tuple[str, object], list[Polygon]] = {row[:2]: [] for row in rows}
    groups = {group for label, group in objects if no_class(label) != 0}
    for label, group, points in rows:
        hole = no_class(label) == 0 and group in groups
        for (name, other), drawn in objects.items():
            if other == group and (hole or name == label):
                drawn.append((hole, points))
    for (name, group), drawn in objects.items():
        if no_class(name) != 0 or group not in groups:
            yield Outline(name, drawn, crowd=False)


def _row(number: int, shape: dict[str, Any]) -> tuple[str, object, np.ndarray]:
    """Return label, group and points [n,2] of a shape; one without a group is its own."""
    if (kind := shape.get("shape_type", "polygon")) != "polygon":
        raise ValueError(f"shape {number} is a {kind}")
    points, group = np.array(shape["points"], np.float64), shape.get("group_id")
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"shape {number} has no points")
    return normalize(shape["label"]), (None, number) if group is None else group, points
