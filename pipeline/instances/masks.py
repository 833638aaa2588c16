"""Instance masks as artefacts hold them: exclusive ids in one map (pseudo-labels), or masks that may overlap, eight pixels a byte."""

import numpy as np

from pipeline.store import Record


def masks_of(record: Record) -> np.ndarray:
    """The instance masks bool [N,H,W] of a picture out of labels.h5 or predictions.h5, in the order of its classes and scores."""
    instances = record["instances"]
    if instances.ndim == 2:
        return instances == np.arange(1, len(record["classes"]) + 1, dtype=instances.dtype)[:, None, None]
    return unpack(instances, record["semantic"].shape[1])


def exclusive_record(record: Record, least: float = 0.3) -> Record:
    """A record to draw: instances that may overlap become an id map of those that score at least `least`; others stay as they are."""
    if "instances" not in record or record["instances"].ndim == 2:
        return record
    kept = record["scores"] >= least
    ids = exclusive(masks_of(record)[kept], record["scores"][kept])
    return {**record, "instances": ids, "classes": record["classes"][kept], "scores": record["scores"][kept]}


def pack(masks: np.ndarray) -> np.ndarray:
    """Masks bool [N,H,W] as bits uint8 [N,H,ceil(W/8)], the first pixel in the highest bit."""
    return np.packbits(masks, axis=2)


def unpack(bits: np.ndarray, width: int) -> np.ndarray:
    """Bits uint8 [N,H,ceil(width/8)] as masks bool [N,H,width]."""
    return np.unpackbits(bits, axis=2, count=width).view(bool)


def exclusive(masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """One id map uint16 [H,W] of masks bool [N,H,W], n + 1 for mask n, 0 none: of those that overlap the highest score is in front.

    scores: [N]; of equal ones the first is in front.
    """
    ids = np.zeros(masks.shape[1:], np.uint16)
    for number in np.argsort(-np.asarray(scores), kind="stable")[::-1]:
        ids[masks[number]] = number + 1
    return ids
