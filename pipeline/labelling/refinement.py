"""Instances refined by a segmenter (SAM, or superpixels), which knows where an object ends.

Each prompts it with its box and with points inside and outside, and takes the answer in the place
of its mask if both agree:

    IoU(answer, mask) >= agreement

An answer that agrees only loosely is of a part, or of a group of objects: then the mask stays.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from pipeline.core.artifacts import IGNORE, Record
from pipeline.data.instance_masks import exclusive, masks_of
from pipeline.segmenters.prompting import Query

POINTS = 8
"""Points inside an instance, and as many outside of it in its box; as many again of each where a
person said something there.
"""


def queries(labels: Record, segments: Record, said: np.ndarray | None = None) -> Iterator[Query]:
    """Yield the prompt of each instance of a record of labels.h5.

    Args:
        labels: the record.
        segments: the segmenter's record of the image, embeddings included.
        said: labels u1 [H,W] of a person, IGNORE where nothing is said; None for nothing anywhere.
    """
    for mask, c in zip(masks_of(labels), labels["classes"].tolist(), strict=True):
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        box = np.zeros_like(mask)
        box[y : y + height, x : x + width] = True
        inside, outside = [deepest_points(mask, POINTS)], [deepest_points(box & ~mask, POINTS)]
        if said is not None:
            own = said == c + 1
            inside.append(deepest_points(mask & own, POINTS))
            outside.append(deepest_points(box & ~own & (said != IGNORE), POINTS))
        corners = (x, y, x + width, y + height)
        yield Query(segments, np.concatenate(inside), np.concatenate(outside), corners)


def deepest_points(mask: np.ndarray, count: int) -> np.ndarray:
    """Return the centers f4 [P,2] (x, y) of at most `count` pixels of a mask [H,W], each as far as
    possible from the mask's edge, the image's, and those before it.
    """
    left, points = np.pad(mask, 1).astype(np.uint8), list[tuple[int, int]]()
    while len(points) < count and left.any():
        depth = cv2.distanceTransform(left, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        left[row, column] = 0
        points.append((int(column), int(row)))
    return np.array(points, np.float32).reshape(-1, 2) - 0.5  # the padding moves them by a pixel


def refined(labels: Record, answers: Sequence[np.ndarray], agreement: float) -> Record:
    """Return a record of labels.h5 whose instances have taken the answers that agree with them.

    Where masks overlap now, a pixel stays with the instance that had it, or else goes to that of
    the highest score. Pixels that an instance lost are background.

    Args:
        labels: the record.
        answers: bool [H,W], one per instance.
        agreement: IoU of an answer with its mask from which on it is taken, in [0,1].
    """
    before, masks = labels["instances"], masks_of(labels)
    for mask, answer in zip(masks, answers, strict=True):
        if (mask & answer).sum() >= agreement * (mask | answer).sum():
            mask[:] = answer
    ids = exclusive(masks, labels["scores"])
    for number, mask in enumerate(masks, start=1):
        ids[mask & (before == number)] = number
    wanted = np.append(0, labels["classes"].astype(int) + 1)[ids]
    semantic = np.where(ids == before, labels["semantic"], wanted).astype(np.uint8)
    return {**labels, "semantic": semantic, "instances": ids}
