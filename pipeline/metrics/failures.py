"""Failures of one image's label map and instances, by kind and with their place.

An object is a true instance or, where an image has no instance mask, all pixels of a class. A
region is an 8-connected component of the predicted pixels of a class, at least SMALL of the image.
Pixels whose ground truth is 255 (void) are ignored; shares are of pixels.

    missed            objects of which less than MISSED is labeled as any class
    wrong_class       objects, not missed, of which more is labeled as other classes than as their
                      own
    bleeding          regions that touch their class, of which MUCH or more, at least SMALL of the
                      image, is true background
    background_taken  regions that do not touch their class, of which MOST or more, at least SMALL
                      of the image, is true background
    merged            predicted instances that hold COVERED or more of each of two or more true
                      instances of their class
    split             true instances of which two or more predicted instances of their class, each
                      to COVERED or more inside, hold PIECE or more
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from pipeline.core.artifacts import IGNORE

KINDS = ("missed", "wrong_class", "bleeding", "background_taken", "merged", "split")
MISSED, MUCH, MOST, SMALL, COVERED, PIECE = 0.25, 0.2, 0.5, 0.005, 0.5, 0.15
"""The shares in the definitions above; SMALL is of the image's pixels."""

Objects = tuple[np.ndarray, np.ndarray]
"""Instances of an image: ids, unsigned integers [H,W], 0 none, 1..N, and 0-based classes [N]."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure: its kind, the 0-based class of the object or region, its number of pixels, and
    their bounding box (top, left, bottom, right), ends excluded.
    """

    kind: str
    label: int
    pixels: int
    box: tuple[int, int, int, int]

    def row(self) -> dict[str, str | int]:
        """Return kind, pixels and bounding box as columns of a table."""
        top, left, bottom, right = self.box
        place = {"top": top, "left": left, "bottom": bottom, "right": right}
        return {"kind": self.kind, "pixels": self.pixels, **place}


@dataclass(slots=True)
class ImageFailures:
    """The failures of one image, and by kind out of how many objects, regions or instances; a kind
    without entry could not be judged.
    """

    failures: list[Failure] = field(default_factory=list)
    out_of: dict[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, int | None]:
        """Return the number of failures by kind, None for kinds that could not be judged."""
        found = Counter(failure.kind for failure in self.failures)
        return {kind: found[kind] if kind in self.out_of else None for kind in KINDS}


def find_failures(
    truth: np.ndarray,
    prediction: np.ndarray,
    true: Objects | None = None,
    found: Objects | None = None,
) -> ImageFailures:
    """Return the failures of a predicted label map and, where both sides have instances, of these.

    Args:
        truth: uint8 [H,W], 0 background, c + 1 class c, 255 void.
        prediction: uint8 [H,W], likewise; 255 counts as background.
        true: ground-truth instances.
        found: predicted instances.

    Raises:
        ValueError: for unequal sizes.
    """
    maps = [truth, prediction, *(objects[0] for objects in (true, found) if objects is not None)]
    if len({one.shape for one in maps}) > 1:
        raise ValueError(f"maps of one image differ in size: {[one.shape for one in maps]}")
    known, result = truth != IGNORE, ImageFailures()
    prediction = np.where(known & (prediction != IGNORE), prediction, 0)
    _objects(result, prediction, _classes(truth) if true is None else true)
    _regions(result, truth, prediction)
    if true is not None and found is not None:
        _instances(result, true, (np.where(known, found[0], 0), found[1]))
    return result


def totals(images: Mapping[str, ImageFailures]) -> dict[str, dict[str, int]]:
    """Return for each kind that could be judged `count`, the number of `images` with any, and
    `out_of` how many.
    """
    whole: dict[str, dict[str, int]] = {}
    for kind in KINDS:
        judged = [one for one in images.values() if kind in one.out_of]
        numbers = [one.counts()[kind] or 0 for one in judged]
        if judged:
            out_of = sum(one.out_of[kind] for one in judged)
            whole[kind] = {
                "count": sum(numbers),
                "images": sum(map(bool, numbers)),
                "out_of": out_of,
            }
    return whole


def _classes(truth: np.ndarray) -> Objects:
    """Return each class's pixels as one object."""
    values = np.unique(truth[(truth > 0) & (truth != IGNORE)])
    table = np.zeros(256, np.uint8)
    table[values] = np.arange(1, len(values) + 1)
    return table[truth], values - 1


def _objects(result: ImageFailures, prediction: np.ndarray, true: Objects) -> None:
    ids, classes = true
    labels = _table(ids, len(classes), prediction, 255)[1:]
    areas = labels.sum(1)
    own = labels[np.arange(len(classes)), classes.astype(np.intp) + 1]
    foreign = labels[:, 1:].sum(1) - own
    missed = own + foreign < MISSED * areas
    for number in np.flatnonzero(areas > 0):
        kind = (
            "missed" if missed[number] else "wrong_class" if foreign[number] > own[number] else None
        )
        if kind:
            result.failures.append(_failure(kind, classes[number], ids == number + 1))
    result.out_of |= dict.fromkeys(("missed", "wrong_class"), int((areas > 0).sum()))


def _regions(result: ImageFailures, truth: np.ndarray, prediction: np.ndarray) -> None:
    least, background, total = SMALL * truth.size, truth == 0, 0
    for label in np.unique(prediction[prediction > 0]).tolist():
        number, pieces = cv2.connectedComponents(
            (prediction == label).astype(np.uint8), connectivity=8
        )
        areas = np.bincount(pieces.ravel(), minlength=number)
        total += int((areas[1:] >= least).sum())
        spilled = np.bincount(pieces[background], minlength=number)
        near = cv2.dilate((truth == label).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        meets = np.bincount(pieces[near], minlength=number) > 0
        much = np.where(meets, MUCH, MOST) * areas
        for piece in range(1, number):
            if spilled[piece] >= max(least, much[piece]):
                kind = "bleeding" if meets[piece] else "background_taken"
                result.failures.append(_failure(kind, label - 1, (pieces == piece) & background))
    result.out_of |= dict.fromkeys(("bleeding", "background_taken"), total)


def _instances(result: ImageFailures, true: Objects, found: Objects) -> None:
    (ids, classes), (found_ids, found_classes) = true, found
    shared = _table(ids, len(classes), found_ids, len(found_classes))
    areas, found_areas = shared.sum(1)[1:], shared.sum(0)[1:]
    shared = np.where(classes[:, None] == found_classes, shared[1:, 1:], 0)
    held = shared >= COVERED * np.maximum(areas, 1)[:, None]
    for number in np.flatnonzero(held.sum(0) > 1):
        result.failures.append(_failure("merged", found_classes[number], found_ids == number + 1))
    pieces = (
        (shared >= PIECE * np.maximum(areas, 1)[:, None])
        & (shared >= COVERED * found_areas)
        & (shared > 0)
    )
    for number in np.flatnonzero(pieces.sum(1) > 1):
        result.failures.append(_failure("split", classes[number], ids == number + 1))
    result.out_of |= {"merged": int((found_areas > 0).sum()), "split": int((areas > 0).sum())}


def _table(rows: np.ndarray, most_row: int, columns: np.ndarray, most_column: int) -> np.ndarray:
    """Count pixels by the values of two maps, int64 [most_row + 1, most_column + 1]."""
    width = most_column + 1
    pairs = rows.astype(np.intp) * width + columns
    return np.bincount(pairs.ravel(), minlength=(most_row + 1) * width).reshape(most_row + 1, width)


def _failure(kind: str, label: int, where: np.ndarray) -> Failure:
    left, top, width, height = cv2.boundingRect(where.view(np.uint8))
    box = top, left, top + height, left + width
    return Failure(kind, int(label), int(where.sum()), box)
