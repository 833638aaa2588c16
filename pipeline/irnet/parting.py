"""Objects that displacements join are parted where the boundary map runs between them (an addition to IRNet).

Neighbours of one class that touch draw each other's pixels in training, so that their displacements may lead to one centre. The
boundary network, which learns from neighbours of other classes, sees the border all the same.
"""

import numpy as np
from skimage.measure import label as connected_components
from skimage.segmentation import watershed

from pipeline.irnet.centroids import Instances


def part(found: Instances, boundary: np.ndarray, strength: float, min_area: float) -> Instances:
    """Part each object of which several pieces are left without the pixels whose boundary is `strength` or more.

    boundary: [H,W] in [0,1]. Pieces below min_area * H * W do not count; those that do grow back over the whole object, along the
    weakest boundaries first (watershed). Parts take class and score of their object; ids follow their first pixel in reading order.
    """
    pieces = connected_components(np.where(boundary < strength, found.instances, 0), connectivity=1)
    areas = np.bincount(pieces.ravel())
    owners = np.zeros(len(areas), np.intp)
    owners[pieces] = found.instances
    large = np.flatnonzero(areas >= min_area * pieces.size)
    large = large[owners[large] > 0]
    whole = len(found.classes)
    parts, objects = found.instances.astype(np.int32), np.arange(1 + whole)
    for number in np.flatnonzero(np.bincount(owners[large], minlength=1 + whole) > 1):
        inside, own = found.instances == number, large[owners[large] == number]
        markers = np.where(np.isin(pieces, own), pieces, 0)
        parts[inside] = len(objects) + np.searchsorted(own, watershed(boundary, markers, mask=inside)[inside])
        objects = np.append(objects, np.full(len(own), number))
    return _renumbered(parts, objects - 1, found)


def _renumbered(parts: np.ndarray, rows: np.ndarray, found: Instances) -> Instances:
    """Parts [H,W] as ids 1..N in reading order; rows: by part, the place of its object in `found`."""
    values, first = np.unique(parts, return_index=True)
    ordered = values[np.argsort(first)]
    ordered = ordered[ordered > 0]
    ids = np.zeros(len(rows), np.uint16)
    ids[ordered] = np.arange(1, len(ordered) + 1)
    return Instances(ids[parts], found.classes[rows[ordered]], found.scores[rows[ordered]])
