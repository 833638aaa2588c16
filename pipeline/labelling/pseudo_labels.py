"""Semantic and instance pseudo-labels from the walked instance CAMs (IRNet, section 5.2).

The walk is linear, so a class's map is the sum of its instances' maps: each map is walked once
(the published code walks class maps and instance maps separately). Segments may vote on the result:
where nearly all pixels of a segment agree, the others follow.
"""

from typing import Literal

import numpy as np

from pipeline.core.artifacts import Record
from pipeline.data.grid import upsample
from pipeline.labelling.instances import extract_instances, split_at_boundaries

Normalize = Literal["class", "image"]
"""What maps are divided by: the maximum of their class, or of all classes in the image."""


def pseudo_labels(
    walk: Record,
    boundary: np.ndarray,
    *,
    background: float,
    normalize: Normalize,
    min_area: float,
    boundary_threshold: float,
) -> Record:
    """Threshold the walked maps of an image into its pseudo-labels.

    Args:
        walk: a record of walk.h5, maps [M,h,w] with their classes [M] and the image's size (H,W).
        boundary: the image's boundary map [h,w] in [0,1].
        background: score of the background, compared with the upsampled and normalized maps.
        normalize: divide by the class's own maximum or, as published, by the image's: a weak class
            in the same image as a strong one can then vanish.
        min_area: share of the image below which an instance is dropped.
        boundary_threshold: boundary strength at which instances are split, 1 for never.

    Returns:
        A record of labels.h5: semantic u1 [H,W], instances u2 [H,W] with classes u1 [N] and scores
        f4 [N].
    """
    size, classes = _size(walk), walk["classes"]
    full = upsample(walk["maps"], size)
    scores, present = _class_scores(full, classes, normalize)
    maps = _divided(full, classes, normalize)
    instances = extract_instances(maps, classes, background, min_area)
    if boundary_threshold < 1:
        edges = upsample(boundary[None], size)[0]
        instances = split_at_boundaries(instances, edges, boundary_threshold, min_area)
    return {"semantic": _semantic(scores, present, background), **instances._asdict()}


def class_maps(walk: Record, normalize: Normalize) -> tuple[np.ndarray, np.ndarray]:
    """Return the class maps f4 [K,H,W] in [0,1] that `pseudo_labels` thresholds, and their class
    ids [K], from a record of walk.h5.
    """
    return _class_scores(upsample(walk["maps"], _size(walk)), walk["classes"], normalize)


def _size(walk: Record) -> tuple[int, int]:
    height, width = map(int, walk["size"])
    return height, width


def _class_scores(
    full: np.ndarray, classes: np.ndarray, normalize: Normalize
) -> tuple[np.ndarray, np.ndarray]:
    """Return maps [M,H,W] summed by class and divided, f4 [K,H,W], and the classes [K]."""
    present = np.unique(classes)
    sums = np.stack([full[classes == c].sum(0) for c in present]) if len(present) else full
    return _divided(sums, present, normalize), present


def _semantic(scores: np.ndarray, classes: np.ndarray, background: float) -> np.ndarray:
    """Return the argmax over [background, scores] as a label map."""
    if len(scores) == 0:
        return np.zeros(scores.shape[1:], np.uint8)
    return np.where(scores.max(0) > background, classes[scores.argmax(0)] + 1, 0).astype(np.uint8)


def _divided(maps: np.ndarray, classes: np.ndarray, normalize: Normalize) -> np.ndarray:
    """Divide maps by the maximum over their class or over all; maps without mass stay zero."""
    if len(maps) == 0:
        return maps
    peaks = maps.max((1, 2))
    if normalize == "class":
        peaks = np.array([peaks[classes == c].max() for c in classes])
    else:
        peaks = np.full_like(peaks, peaks.max())
    return maps / np.maximum(peaks, np.finfo(np.float32).tiny)[:, None, None]


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
