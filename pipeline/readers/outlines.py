"""Outlines of objects as polygons or run lengths (RLE), and the masks that they stand for.

The COCO API rasterizes them: Lin et al., Microsoft COCO: Common Objects in Context, 2014.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from pipeline.core.artifacts import IGNORE
from pipeline.readers.source import no_class

Draw = Callable[[Any, tuple[int, int]], np.ndarray]


def whole(value: Any) -> int | None:
    """Return a whole number in any notation, such as 3, 3.0 or "3", or None."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,100}\s*", value):
        return int(value)  # a float would round the long ids of some databases
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) and number.is_integer() else None


@dataclass(frozen=True, slots=True)
class Outline:
    """One annotation: class name, polygons or RLE in pixels as in COCO, whether it is a crowd."""

    name: str
    segmentation: Any
    crowd: bool

    @property
    def void(self) -> bool:
        """Whether it is of no object: a crowd, or an area to ignore."""
        return self.crowd or no_class(self.name) == IGNORE


def fill(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """Fill polygons relative to the image as Ultralytics does, border included: bool [H,W]."""
    mask = np.zeros(size, np.uint8)
    for polygon in polygons:
        points = np.reshape(polygon, (-1, 2)) * size[::-1]
        cv2.fillPoly(mask, [np.clip(points, -1, np.array(size[::-1])).astype(np.int32)], 1)
    return mask.astype(bool)


def rasterize(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Rasterize COCO polygons [[x, y, ...], ...] or RLE {size, counts} to a bool mask [H,W].

    Raises ValueError that says what is wrong with them.
    """
    if isinstance(segmentation, Mapping):
        return _from_rle(segmentation, size)
    if isinstance(segmentation, list) and segmentation:
        return _from_polygons(segmentation, size)
    raise ValueError("the segmentation is neither polygons nor RLE")


def clean(segmentation: Any) -> tuple[Any, int]:
    """Return a segmentation with its polygons as a list of lists, and how many were left out.

    Left out are polygons of fewer than three points, which have no area. Raises ValueError if a
    polygon holds anything but numbers.
    """
    if not isinstance(segmentation, list) or not segmentation:
        return segmentation, 0
    if not isinstance(segmentation[0], list) or (
        len(segmentation) > 2
        and all(isinstance(part, list) and len(part) == 2 for part in segmentation)
    ):  # one polygon without the list around it
        segmentation = [segmentation]
    polygons = [_flat(polygon).tolist() for polygon in segmentation]
    kept = [polygon for polygon in polygons if len(polygon) >= 6]
    return kept, len(polygons) - len(kept)


def _flat(polygon: Any) -> np.ndarray:
    """Return the numbers x, y, x, y, ... of a polygon, also of one that is a list of points."""
    try:
        points = np.asarray(polygon, np.float64).ravel()
    except (TypeError, ValueError):
        raise ValueError("a polygon contains something other than numbers") from None
    if len(points) % 2:
        raise ValueError("a polygon has an odd number of coordinates")
    return points


def _from_polygons(polygons: Sequence[Any], size: tuple[int, int]) -> np.ndarray:
    from faster_coco_eval.core import mask as coco_mask

    height, width = size
    flat = [_flat(polygon) for polygon in polygons]
    for points in flat:
        if len(points) < 6:
            raise ValueError("a polygon has fewer than three points")
        distance = np.abs(points.reshape(-1, 2) - (width / 2, height / 2))
        # The coder's memory grows with the distance, and the outline is that of another image.
        if not (np.isfinite(distance).all() and (distance <= (width, height)).all()):
            raise ValueError("a polygon lies far outside the image")
    codes = coco_mask.frPyObjects([points.tolist() for points in flat], height, width)
    return coco_mask.decode(coco_mask.merge(codes)).astype(bool)


def _from_rle(rle: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    from faster_coco_eval.core import mask as coco_mask

    numbers = rle.get("size")
    if not isinstance(numbers, Sequence) or [whole(number) for number in numbers] != list(size):
        raise ValueError(
            f"RLE of size {rle.get('size')} on an image of {list(size)} (height, width)"
        )
    code = {"size": list(size), "counts": rle.get("counts")}
    try:
        if isinstance(code["counts"], list):
            code["counts"] = [whole(count) for count in code["counts"]]
            code = coco_mask.frPyObjects(code, *size)
        return coco_mask.decode(code).astype(bool)
    except (KeyError, RuntimeError, TypeError, ValueError):
        raise ValueError(
            f"the RLE is damaged, or its counts do not add up to {size[0] * size[1]} pixels"
        ) from None


@dataclass(frozen=True, slots=True)
class MaskRenderer:
    """Renders the masks of one image from its outlines.

    size: (H, W) that the source gives for the image, None if it gives none; draw: makes a bool mask
    [H,W] of a segmentation and (H, W).
    """

    size: tuple[int, int] | None
    outlines: tuple[Outline, ...]
    draw: Draw = rasterize

    def __call__(
        self, labels: Mapping[str, int], size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Render label map uint8 [H,W] and instance ids uint16 [H,W].

        Crowds, and outlines of areas to ignore, come first, as void; then objects from large to
        small, so that the smaller one is in front. Classes without a label are background, even in
        front of others. Raises ValueError if the decoded image has another `size` (H, W), or if an
        outline is invalid.
        """
        if self.size is not None and size != self.size:
            here, actual = f"{self.size[1]} x {self.size[0]}", f"{size[1]} x {size[0]}"
            raise ValueError(
                f"outlines for an image of {here} pixels, but the file has {actual} (upright)"
            )
        semantic, instances = np.zeros(size, np.uint8), np.zeros(size, np.uint16)
        layers = [(one, *_crop(self.draw(one.segmentation, size))) for one in self.outlines]
        layers.sort(key=lambda layer: (not layer[0].void, -int(layer[2].sum())))
        objects = 0
        for outline, window, mask in layers:
            label = labels.get(outline.name, no_class(outline.name) or 0)
            if outline.void:
                semantic[window][mask] = IGNORE if label else 0
                continue
            objects += 1
            semantic[window][mask] = label
            instances[window][mask] = objects if label else 0
        return semantic, instances


def _crop(mask: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    """Crop a mask to its bounding box, as hundreds of whole masks of a large image fill memory."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    window = slice(top, top + height), slice(left, left + width)
    return window, mask[window].copy()
