"""LabelMe: a JSON of polygons next to each image, written and read back exactly.

Polygons run along the centers of the outermost pixels. Those of an object share a group; holes are
polygons of LabelMe's label `_background_` in it. They are drawn in the order of the file.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.data.images import DatasetError, error
from pipeline.export.images import ExportImages, Summary, Target, check_names, write
from pipeline.readers.outlines import MaskRenderer, Outline, whole
from pipeline.readers.source import no_class, normalize
from pipeline.readers.tables import read_json

HOLE = "_background_"
DO_SAVE = "draw polygons in LabelMe and save it again"
Polygon = tuple[bool, Any]
"""Whether it is a hole, and its points [n,2] (x, y)."""


def export(images: ExportImages, target: Target) -> Summary:
    """Write image files, each with its JSON, to images/."""
    check_names(images.names)
    summary = Summary()
    for image in images:
        file = f"images/{image.name}{target.files[image.name].suffix}"
        target.place(image.name, file)
        shapes = [
            _shape(HOLE if hole else target.classes[c], points, k)
            for k, (mask, c) in enumerate(zip(image.masks, image.classes, strict=True), start=1)
            for hole, points in polygons(mask)
        ]
        content = {
            "version": "5.0.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(file).name,
            "imageData": None,
            "imageHeight": image.size[0],
            "imageWidth": image.size[1],
        }
        path = target.folder / f"images/{image.name}.json"
        write(path, (json.dumps(content, ensure_ascii=False) + "\n").encode())
        summary.images, summary.instances = summary.images + 1, summary.instances + len(image.masks)
    return summary


def _shape(label: str, points: np.ndarray, group: int) -> dict[str, Any]:
    return {
        "label": label,
        "points": points.tolist(),
        "group_id": group,
        "shape_type": "polygon",
        "flags": {},
    }


def polygons(mask: np.ndarray) -> list[Polygon]:
    """Return the outlines of the parts of a mask bool [H,W] and of their holes, larger ones first.

    Parts are 4-connected and holes 8-connected, so that none crosses another: drawn in this order
    they give the mask exactly.
    """
    found = list[tuple[int, np.ndarray, bool]]()
    for part in _pieces(mask, 4):
        found.append((*_traced(part), False))
        framed = np.pad(~part, 1, constant_values=True)
        outside, *holes = _pieces(framed, 8)
        del outside  # which has the first pixel
        found += [(*_traced(hole[1:-1, 1:-1]), True) for hole in holes]
    found.sort(key=lambda piece: -piece[0])
    return [(hole, points) for _, points, hole in found]


def _pieces(mask: np.ndarray, connectivity: int) -> list[np.ndarray]:
    """Return the connected pieces bool [H,W] of a mask in the order of their first pixels."""
    count, ids = cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)
    return [ids == k for k in range(1, count)]


def _traced(piece: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the pixels in the outline of a piece, holes included, and its points, 3 or more."""
    (contour,), _ = cv2.findContours(
        piece.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    points = contour[:, 0]
    points = np.concatenate([points, np.repeat(points[-1:], max(0, 3 - len(points)), axis=0)])
    return int(rasterize([(False, points)], piece.shape).sum()), points


def rasterize(shape: list[Polygon], size: tuple[int, ...]) -> np.ndarray:
    """Return the mask bool [H,W] of polygons drawn one after the other."""
    mask = np.zeros(size, np.uint8)
    for hole, points in shape:
        inside = np.clip(np.rint(points), -1, size[::-1])  # OpenCV wants numbers of 32 bits
        cv2.fillPoly(mask, [inside.astype(np.int32)], 0 if hole else 1)
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
        return MaskRenderer(size, tuple(_outlines(content["shapes"])), rasterize)  # type: ignore[arg-type]
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise DatasetError(error(path, f"is damaged ({problem!r})", DO_SAVE)) from None


def _outlines(shapes: list[dict[str, Any]]) -> Iterator[Outline]:
    """Yield the objects: polygons of one label and group are one, less the holes of the group."""
    objects = dict[tuple[str, object], list[Polygon]]()
    rows = list[tuple[str, object, np.ndarray]]()
    for k, shape in enumerate(shapes):
        if shape.get("shape_type", "polygon") != "polygon":
            raise ValueError(f"a shape of type {shape['shape_type']}")
        points, group = np.array(shape["points"], np.float64), shape.get("group_id")
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise ValueError("a polygon without points")
        label = normalize(shape["label"])
        rows.append((label, ("alone", k) if group is None else whole(group), points))
        objects.setdefault(rows[-1][:2], [])
    grouped = {group for label, group in objects if no_class(label) != 0}
    for label, group, points in rows:
        for (name, other), drawn in objects.items():
            if other == group and (name == label or no_class(label) == 0):
                drawn.append((name != label, points))
    for (name, group), drawn in objects.items():
        if no_class(name) != 0 or group not in grouped:
            yield Outline(name, drawn, crowd=False)
