"""One picture for each kind of failure, with the place marked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.views.gathering import Example, Gallery
from pipeline.views.summary import KINDS

SHOWN = {
    "labels": ("picture", "pseudo-label", "truth"),
    "predictions": ("picture", "prediction", "truth"),
}
INSTANCES = {
    "labels": ("picture", "instances", "true instances"),
    "predictions": ("picture", "predicted instances", "true instances"),
}
"""Step -> panels that show a failure of its label maps, and of its instances."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """A kind of failure in one step: how often, in how many pictures, out of how many, and where it takes most pixels."""

    kind: str
    count: int
    pictures: int
    out_of: int
    example: Example | None


def mistakes(
    gallery: Gallery,
    step: str,
    kinds: Mapping[str, Mapping[str, int]],
    places: Sequence[Mapping[str, str]],
) -> list[Mistake]:
    """Every kind that was judged, with the largest one drawn.

    step: labels or predictions; kinds and places: its tables `failure_kinds` and `failure_places` (`metrics.tables`).
    """
    return [
        Mistake(
            kind,
            numbers["count"],
            numbers["pictures"],
            numbers["out_of"],
            largest(gallery, step, kind, places),
        )
        for kind, numbers in kinds.items()
        if kind in KINDS
    ]


def largest(gallery: Gallery, step: str, kind: str, places: Sequence[Mapping[str, str]]) -> Example | None:
    """The picture in which a failure of this kind takes most pixels, of equal ones the first by id; None without any."""
    own = [place for place in places if place["kind"] == kind]
    if not own:
        return None
    place = min(own, key=lambda row: (-int(row["pixels"]), row["id"]))
    titles = (INSTANCES if kind in ("merged", "split") else SHOWN)[step]
    example = gallery.example(place["id"], note=place["class"]).only(titles)
    picture = gallery.index[place["id"]]
    box = tuple(int(place[edge]) for edge in ("top", "left", "bottom", "right"))
    marked = {
        title: boxed(panel, box, (picture.height, picture.width)) for title, panel in example.panels.items()
    }
    return Example(example.id, marked, keys=example.keys, note=example.note)


def boxed(panel: np.ndarray, box: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """A panel with a light frame on a dark rim around a box (top, left, bottom, right) of a picture of `size` (H,W); a copy."""
    height, width = panel.shape[:2]
    down, across = height / size[0], width / size[1]
    corner = max(0, round(box[1] * across) - 2), max(0, round(box[0] * down) - 2)
    other = min(width - 1, round(box[3] * across) + 1), min(height - 1, round(box[2] * down) + 1)
    drawn = np.ascontiguousarray(panel.copy())
    for colour, thickness in (((20, 20, 24), 4), ((255, 255, 255), 2)):
        cv2.rectangle(drawn, corner, other, colour, thickness)
    return drawn
