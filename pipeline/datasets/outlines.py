"""Outlines as COCO writes them, polygons and run lengths, painted into masks.

Lin et al., Microsoft COCO: Common Objects in Context, 2014; the format of run lengths is that of the COCO
API.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.label_map import IGNORE


@dataclass(frozen=True, slots=True)
class Outline:
    """One annotation: class name, `segmentation` as in the json, and whether it is a crowd, which is no
    single object."""

    name: str
    segmentation: Any
    crowd: bool


@dataclass(frozen=True, slots=True)
class Painting:
    """The outlines of one picture of `size` (height, width); called with the labels in use it paints the
    masks."""

    size: tuple[int, int]
    outlines: tuple[Outline, ...]

    def __call__(self, labels: Mapping[str, int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Label map uint8 [H,W] and instance ids uint16 [H,W] of the picture, whose file has `size`.

        Crowds come first, as void; then the objects from large to small, so that the smaller one lies on top.
        Classes without a label are background, also where they cover others. Raises ValueError for another
        size and for bad outlines.
        """
        if size != self.size:
            here, there = f"{self.size[1]} x {self.size[0]}", f"{size[1]} x {size[0]}"
            raise ValueError(f"outlines for a picture of {here} pixels, but the file has {there} (upright)")
        semantic, instances = np.zeros(size, np.uint8), np.zeros(size, np.uint16)
        layers = [(outline, *_crop(rasterise(outline.segmentation, size))) for outline in self.outlines]
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
    """The box around a mask and the mask inside it: hundreds of whole ones of a large picture fill the
    memory."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return (slice(0, 0), slice(0, 0)), mask[:0, :0]
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return window, mask[window].copy()


def rasterise(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
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
            raise ValueError("a polygon needs at least three points, as a flat list x, y, x, y, ...")
        xy = points.reshape(-1, 2)
        # Far points cost memory in proportion, and mean that the outline belongs to another picture.
        if not (np.isfinite(xy).all() and (np.abs(xy - (width / 2, height / 2)) <= (width, height)).all()):
            raise ValueError("a polygon lies far outside the picture")
    runs = coder.frPyObjects(list(polygons), height, width)
    return coder.decode(coder.merge(runs)).astype(bool)


def _from_runs(runs: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Runs of 0 and 1 in turn, column by column."""
    if runs.get("size") not in (list(size), size):
        raise ValueError(
            f"run lengths of size {runs.get('size')} on a picture of {list(size)} (height, width)"
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
    """The counts in a compressed string; raises ValueError for letters that cannot occur or an end in
    mid-number.

    A number is written in groups of five bits, lowest first, as letters from '0' on; bit 5 says that more
    follow, bit 4 of the last group is the sign. From the fourth number on it is the difference to the one two
    before.
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
