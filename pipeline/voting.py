"""Segments vote on labels: where nearly all pixels of a segment agree, the others follow."""

import numpy as np

from pipeline.store import Record


def vote(labels: np.ndarray, segments: np.ndarray, agreement: float) -> np.ndarray:
    """The label map [H,W] in which each segment whose commonest label covers at least `agreement` of it takes that label.

    labels: integers >= 0; segments: integers [H,W], 0 = none, whose pixels keep their labels. Of equally common labels the lowest wins.
    """
    ids, flat = segments.ravel().astype(np.int64), labels.ravel().astype(np.int64)
    kinds = int(flat.max(initial=0)) + 1
    pairs, counts = np.unique(ids * kinds + flat, return_counts=True)
    owners, values = np.divmod(pairs, kinds)
    order = np.lexsort((-values, counts, owners))  # a segment's commonest label comes last
    last = np.flatnonzero(np.append(np.diff(owners[order]) > 0, True))
    winners, areas = order[last], np.bincount(ids)
    agreed = winners[(counts[winners] >= agreement * areas[owners[winners]]) & (owners[winners] > 0)]
    table = np.full(len(areas), -1)
    table[owners[agreed]] = values[agreed]
    decided = table[ids]
    return np.where(decided >= 0, decided, flat).reshape(labels.shape).astype(labels.dtype)


def vote_record(record: Record, segments: np.ndarray, agreement: float) -> Record:
    """Pseudo-labels (semantic, instances, classes, scores) after the vote; instances that lose every pixel are dropped."""
    voted = vote(record["instances"], segments, agreement)
    kept = np.unique(voted[voted > 0])
    renumbered = np.zeros(len(record["classes"]) + 1, voted.dtype)
    renumbered[kept] = np.arange(1, len(kept) + 1)
    return {
        "semantic": vote(record["semantic"], segments, agreement),
        "instances": renumbered[voted],
        "classes": record["classes"][kept - 1],
        "scores": record["scores"][kept - 1],
    }
