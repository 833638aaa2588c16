"""Instance masks as artifacts hold them: exclusive ids in one map (pseudo-labels) or masks that
may overlap, eight pixels per byte (predictions); `masks_of` reads both.
"""

import numpy as np

from pipeline.core.artifacts import Record


def masks_of(record: Record) -> np.ndarray:
    """Return the instance masks bool [N,H,W] of a record of labels.h5 or predictions.h5, in the
    order of its classes and scores.
    """
    instances = record["instances"]
    if instances.ndim == 2:
        ids = np.arange(1, len(record["classes"]) + 1, dtype=instances.dtype)
        return instances == ids[:, None, None]
    return unpack(instances, record["semantic"].shape[1])


def exclusive_record(record: Record, min_score: float = 0.3) -> Record:
    """Return a record whose instances are exclusive: of overlapping ones, an id map of those that
    score at least `min_score`; id maps stay as they are.
    """
    if "instances" not in record or record["instances"].ndim == 2:
        return record
    kept = record["scores"] >= min_score
    ids = exclusive(masks_of(record)[kept], record["scores"][kept])
    return {
        **record,
        "instances": ids,
        "classes": record["classes"][kept],
        "scores": record["scores"][kept],
    }


def pack(masks: np.ndarray) -> np.ndarray:
    """Pack masks bool [N,H,W] into bits uint8 [N,H,ceil(W/8)], the first pixel highest."""
    return np.packbits(masks, axis=2)


def unpack(bits: np.ndarray, width: int) -> np.ndarray:
    """Unpack bits uint8 [N,H,ceil(width/8)] into masks bool [N,H,width]."""
    return np.unpackbits(bits, axis=2, count=width).view(bool)


def exclusive(masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return one id map uint16 [H,W] of masks bool [N,H,W]: n + 1 for mask n, 0 for none.

    Where masks overlap the highest score [N] is in front, of equal scores the first.
    """
    ids = np.zeros(masks.shape[1:], np.uint16)
    for number in np.argsort(-np.asarray(scores), kind="stable")[::-1]:
        ids[masks[number]] = number + 1
    return ids
