"""Semantic and instance pseudo-labels from the walked instance CAMs (IRNet, section 5.2).

The walk is linear, so a class's map is the sum of its instances' maps: each map is walked once
(the published code walks class maps and instance maps separately). IRNet compares a map, divided by
its maximum, with a constant. A walk averages a map over the region that it cannot leave, so that a
body gets less than the head that its CAM points at. The background's seeds are averaged over the
same regions, and can be what a class has to exceed there (AffinityNet, Ahn and Kwak, CVPR 2018, but
for the division by the maximum):

    score_c = N_c / (N_c + M_0) > 1/2,   N_c = M_c / max M_c,   M_0: the background's map

Each pixel goes to the map that is highest there, and the 4-connected pieces of what a map wins are
its instances. Neighbors of one class that touch draw each other's pixels in training, so that their
displacements may lead to one center and both share one map. The boundary network, which learns from
neighbors of different classes, sees the border all the same: instances can be split where the
boundary map runs through them (an addition to IRNet).

Segments may vote on the result: where nearly all pixels of a segment agree, the others follow.
"""

from typing import Literal, NamedTuple

import numpy as np
from skimage.measure import label as connected_components
from skimage.segmentation import watershed

from pipeline.core.artifacts import Record
from pipeline.labelling import assign, upsample
from pipeline.labelling.hints import Hint

Normalize = Literal["background", "class", "image"]
"""What maps are divided by: the maximum of their class, or of all classes in the image, or the
first and then their sum with the background.
"""


def pseudo_labels(
    walk: Record,
    boundary: np.ndarray,
    *,
    background: float,
    normalize: Normalize,
    min_area: float,
    boundary_threshold: float,
    hint: Hint | None = None,
) -> Record:
    """Threshold the walked maps of an image into its pseudo-labels.

    Args:
        walk: a record of walk.h5, maps [M,h,w] with their classes [M], the background's map [h,w]
            and the image's size (H,W).
        boundary: the image's boundary map [h,w] in [0,1].
        background: score of the background, compared with the upsampled and normalized maps.
        normalize: divide by the class's own maximum or, as published, by the image's: a weak class
            in the same image as a strong one can then vanish; or compare the former with the
            background's map.
        min_area: share of the image below which an instance is dropped.
        boundary_threshold: boundary strength at which instances are split, 1 for never.
        hint: what is known about the image's pixels.

    Returns:
        A record of labels.h5: semantic u1 [H,W], instances u2 [H,W] with classes u1 [N] and scores
        f4 [N].
    """
    classes, full, rest = walk["classes"], *_full(walk)
    scores, present = _class_scores(full, classes, rest, normalize)
    maps = _divided(full, classes, rest, normalize)
    if hint is not None:
        scores, maps = hint.applied(scores, present), hint.applied_to_instances(maps, classes)
    instances = extract_instances(maps, classes, background, min_area)
    if boundary_threshold < 1:
        edges = upsample(boundary[None], rest.shape)[0]
        instances = split_at_boundaries(instances, edges, boundary_threshold, min_area)
    return {"semantic": assign(scores, present, background), **instances._asdict()}


def class_maps(walk: Record, normalize: Normalize) -> tuple[np.ndarray, np.ndarray]:
    """Return the class maps f4 [K,H,W] in [0,1] that `pseudo_labels` thresholds, and their class
    ids [K], from a record of walk.h5.
    """
    full, rest = _full(walk)
    return _class_scores(full, walk["classes"], rest, normalize)


def _full(walk: Record) -> tuple[np.ndarray, np.ndarray]:
    """Return the maps f4 [M,H,W] and the background's [H,W] at the image's size."""
    height, width = map(int, walk["size"])
    stack = np.concatenate([walk["maps"], walk["background"][None]])
    full = upsample(stack, (height, width))
    return full[:-1], full[-1]


def _class_scores(
    full: np.ndarray, classes: np.ndarray, rest: np.ndarray, normalize: Normalize
) -> tuple[np.ndarray, np.ndarray]:
    """Return maps [M,H,W] summed by class and divided, f4 [K,H,W], and the classes [K]; rest: the
    background's map [H,W].
    """
    present = np.unique(classes)
    return _divided(_sums(full, classes, present), present, rest, normalize), present


def _sums(maps: np.ndarray, classes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the sums [K,H,W] of the maps [M,H,W] of each wanted class [K]."""
    return np.stack([maps[classes == c].sum(0) for c in wanted]) if len(wanted) else maps


def _divided(
    maps: np.ndarray, classes: np.ndarray, rest: np.ndarray, normalize: Normalize
) -> np.ndarray:
    """Divide maps [M,H,W] as `normalize` says; maps without mass stay zero."""
    if len(maps) == 0:
        return maps
    if normalize == "background":
        sums = _sums(maps, classes, classes)
        whole = sums + sums.max((1, 2), keepdims=True) * rest
    else:
        peaks = maps.max((1, 2))
        if normalize == "class":
            peaks = np.array([peaks[classes == c].max() for c in classes])
        else:
            peaks = np.full_like(peaks, peaks.max())
        whole = peaks[:, None, None]
    return maps / np.maximum(whole, np.finfo(np.float32).tiny)


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
        Instances with ids in the order of their first pixels; the score is the map's mean in the
        instance.

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
    owners = np.zeros(len(areas), np.intp)
    owners[pieces] = owner
    means = (np.bincount(pieces.ravel(), best.ravel()) / np.maximum(areas, 1)).astype(np.float32)
    ids = np.zeros(len(areas), np.uint16)
    ids[kept] = np.arange(1, len(kept) + 1)
    return InstanceMap(ids[pieces], classes.astype(np.uint8)[owners[kept] - 1], means[kept])


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


def vote(labels: np.ndarray, segments: np.ndarray, agreement: float) -> np.ndarray:
    """Return the label map [H,W] after each segment has voted.

    A segment takes its most frequent label if this covers at least `agreement` of it; of equally
    frequent labels the lowest wins.

    Args:
        labels: integers [H,W] >= 0.
        segments: integers [H,W]; pixels of segment 0 keep their labels.
        agreement: share of a segment in [0,1].
    """
    ids, flat = segments.ravel().astype(np.int64), labels.ravel().astype(np.int64)
    values = int(flat.max(initial=0)) + 1
    pairs, counts = np.unique(ids * values + flat, return_counts=True)
    owners, candidates = np.divmod(pairs, values)
    order = np.lexsort((-candidates, counts, owners))  # a segment's most frequent label comes last
    last = np.flatnonzero(np.append(np.diff(owners[order]) > 0, True))
    winners, areas = order[last], np.bincount(ids)
    elected = counts[winners] >= agreement * areas[owners[winners]]
    agreed = winners[elected & (owners[winners] > 0)]
    table = np.full(len(areas), -1)
    table[owners[agreed]] = candidates[agreed]
    decided = table[ids]
    return np.where(decided >= 0, decided, flat).reshape(labels.shape).astype(labels.dtype)


def vote_record(record: Record, segments: np.ndarray, agreement: float) -> Record:
    """Return a record of labels.h5 after the vote; instances that lose every pixel are dropped."""
    voted = vote(record["instances"], segments, agreement)
    kept = np.unique(voted[voted > 0])
    ids = np.zeros(len(record["classes"]) + 1, voted.dtype)
    ids[kept] = np.arange(1, len(kept) + 1)
    return {
        "semantic": vote(record["semantic"], segments, agreement),
        "instances": ids[voted],
        "classes": record["classes"][kept - 1],
        "scores": record["scores"][kept - 1],
    }
