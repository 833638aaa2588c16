"""Instances from the walked maps of an image: each pixel goes to the map that is highest there
(IRNet, section 5.2), and the 4-connected pieces of what a map wins are its instances.

Neighbors of one class that touch draw each other's pixels in training, so that their displacements
may lead to one center and both share one map. The boundary network, which learns from neighbors of
different classes, sees the border all the same: instances can be split where the boundary map runs
through them (an addition to IRNet).
"""

from typing import NamedTuple

import numpy as np
from skimage.measure import label as connected_components
from skimage.segmentation import watershed


class InstanceMap(NamedTuple):
    """Exclusive instances of an image.

    instances: uint16 [H,W], ids 1..N or 0; classes: uint8 [N], 0-based; scores: float32 [N].
    """

    instances: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def extract_instances(
    maps: np.ndarray, classes: np.ndarray, background: float, min_area: float
) -> InstanceMap:
    """Return the 4-connected pieces of the pixels that each map wins.

    Args:
        maps: [M,H,W], normalized to at most 1; the first of equal maps wins.
        classes: their 0-based classes [M].
        background: score of the background; a pixel is background unless a map exceeds it.
        min_area: share of the image below which a piece is dropped.

    Returns:
        Instances with ids in the order of their first pixels; the score is the map's maximum in
        the instance.

    Raises:
        ValueError: for more instances than uint16 can number.
    """
    best = maps.max(0, initial=background)
    owner = np.zeros(best.shape, np.int32)
    if len(maps):
        owner = np.where(best > np.float32(background), maps.argmax(0) + 1, 0)
    pieces = connected_components(owner, connectivity=1)
    areas = np.bincount(pieces.ravel())
    kept = np.flatnonzero(areas >= min_area * owner.size)
    kept = kept[kept > 0]
    if len(kept) > np.iinfo(np.uint16).max:
        raise ValueError(
            f"{len(kept)} instances do not fit in uint16: raise min_area above {min_area}"
        )
    owners, peaks = np.zeros(len(areas), np.intp), np.zeros(len(areas), np.float32)
    owners[pieces] = owner
    np.maximum.at(peaks, pieces.ravel(), best.ravel())
    ids = np.zeros(len(areas), np.uint16)
    ids[kept] = np.arange(1, len(kept) + 1)
    return InstanceMap(ids[pieces], classes.astype(np.uint8)[owners[kept] - 1], peaks[kept])


def split_at_boundaries(
    found: InstanceMap, boundary: np.ndarray, threshold: float, min_area: float
) -> InstanceMap:
    """Split each instance of which several pieces remain without the pixels whose boundary is
    `threshold` or more.

    The pieces grow back over the whole instance, along the weakest boundaries first (watershed).

    Args:
        found: the instances.
        boundary: boundary map [H,W] in [0,1].
        threshold: boundary strength at which instances are split.
        min_area: share of the image below which a piece does not count.

    Returns:
        Instances with ids in the order of their first pixels; parts have the class and score of
        their whole.
    """
    pieces = connected_components(
        np.where(boundary < threshold, found.instances, 0), connectivity=1
    )
    areas = np.bincount(pieces.ravel())
    owners = np.zeros(len(areas), np.intp)
    owners[pieces] = found.instances
    large = np.flatnonzero(areas >= min_area * pieces.size)
    large = large[owners[large] > 0]
    count = len(found.classes)
    parts, wholes = found.instances.astype(np.int32), np.arange(1 + count)
    for number in np.flatnonzero(np.bincount(owners[large], minlength=1 + count) > 1):
        inside, own = found.instances == number, large[owners[large] == number]
        markers = np.where(np.isin(pieces, own), pieces, 0)
        parts[inside] = len(wholes) + np.searchsorted(
            own, watershed(boundary, markers, mask=inside)[inside]
        )
        wholes = np.append(wholes, np.full(len(own), number))
    return _renumber(parts, wholes - 1, found)


def _renumber(parts: np.ndarray, rows: np.ndarray, found: InstanceMap) -> InstanceMap:
    """Return parts [H,W] with ids 1..N in reading order; rows: the row in `found` of each part's
    whole.
    """
    values, first = np.unique(parts, return_index=True)
    ordered = values[np.argsort(first)]
    ordered = ordered[ordered > 0]
    ids = np.zeros(len(rows), np.uint16)
    ids[ordered] = np.arange(1, len(ordered) + 1)
    return InstanceMap(ids[parts], found.classes[rows[ordered]], found.scores[rows[ordered]])
