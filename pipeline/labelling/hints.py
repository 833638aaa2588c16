"""Hints against class maps: a person's word holds, a model's evidence competes.

With scores s of a class, a model's evidence e times the trust t, a the factor of its boxes, and
`said` and `own` the shares of a cell that a person gave any label and this class:

    s' = max(s, t e) a (1 - said) + own

A box forbids its class outside of all boxes of the class: there a = 0 if a person drew one of them,
else 1 - t times the highest score. At full resolution `said` and `own` are 0 or 1; on the grid of
the maps all are means over cells. Thresholds and the argmax follow as without hints.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.core.artifacts import IGNORE, Reader, Record


@dataclass(frozen=True, slots=True)
class Hint:
    """The hints of an image: its record of hints.h5, and the trust in models, 0..1."""

    record: Record
    trust: float

    def applied(self, scores: np.ndarray, classes: np.ndarray, stride: int = 1) -> np.ndarray:
        """Return scores f4 [K,h,w] in [0,1] of classes [K] after the hints.

        A cell of the scores covers `stride` x `stride` pixels.
        """
        grid, pixels = scores.shape[1:], self.record["pixels"]
        known = dict(zip(self.record["classes"].tolist(), self.record["evidence"], strict=True))
        said = _reduced(pixels != IGNORE, stride, grid)
        result = np.array(scores, np.float32)
        for own, c in zip(result, classes.tolist(), strict=True):
            if c in known:
                np.maximum(own, self.trust * _reduced(known[c], stride, grid), out=own)
            if (allowed := self._allowed(c)) is not None:
                own *= _reduced(allowed, stride, grid)
            own *= 1 - said
            own += _reduced(pixels == c + 1, stride, grid)
        return result

    def applied_to_instances(self, maps: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return maps f4 [M,H,W] of instances of classes [M] after the hints.

        At each pixel the highest map of a class takes the class's score, which bounds the others.
        """
        result = np.array(maps, np.float32)
        for c in np.unique(classes):
            rows = np.flatnonzero(classes == c)
            best = maps[rows].argmax(0)[None]
            score = self.applied(maps[rows].max(0)[None], np.array([c]))
            own = np.minimum(result[rows], score)
            np.put_along_axis(own, best, score, 0)
            result[rows] = own
        return result

    def settled(self, labels: np.ndarray) -> np.ndarray:
        """Return a label map [H,W] with a person's labels in place of its own."""
        pixels = self.record["pixels"]
        return np.where(pixels == IGNORE, labels, pixels).astype(labels.dtype)

    def settled_record(self, labels: Record, background: float) -> Record:
        """Return a record of labels.h5 with a person's labels, and with the objects that hints
        outline as instances of their own, as far as the label map agrees: all of a person's, and
        those of a model whose score times the trust exceeds the background's.
        """
        semantic = self.settled(labels["semantic"])
        ids = labels["instances"].astype(np.int64)
        said = self.record["pixels"] != IGNORE
        ids[said & (np.append(0, labels["classes"].astype(np.int64) + 1)[ids] != semantic)] = 0
        c, score, person = self.record["objects"].T
        score = np.where(person > 0, score, self.trust * score)
        drawn = self.record["instances"]
        keys = np.append(0, c.astype(np.int64) + 1)
        sure = np.append(False, (person > 0) | (score > background))
        own = sure[drawn] & (keys[drawn] == semantic) & (drawn > 0)
        ids[own] = len(labels["classes"]) + drawn[own]
        kept, dense = np.unique(np.append(0, ids), return_inverse=True)
        rows = kept[1:] - 1
        return {
            "semantic": semantic,
            "instances": dense[1:].reshape(ids.shape).astype(np.uint16),
            "classes": np.append(labels["classes"], c.astype(np.uint8))[rows],
            "scores": np.append(labels["scores"], score.astype(np.float32))[rows],
        }

    def _allowed(self, c: int) -> np.ndarray | None:
        """Return the factor [H,W] that the boxes of a class leave it, None without any."""
        boxes = self.record["boxes"]
        own = boxes[boxes[:, 0] == c]
        if not len(own):
            return None
        height, width = self.record["pixels"].shape
        weights = np.where(own[:, 2] > 0, 1, self.trust * own[:, 1])
        allowed = np.full((height, width), 1 - weights.max(), np.float32)
        for x0, y0, x1, y1 in own[:, 3:]:
            rows, columns = (
                slice(max(0, int(np.floor(low))), max(0, int(np.ceil(high))))
                for low, high in ((y0, y1), (x0, x1))
            )
            allowed[rows, columns] = 1
        return allowed


def hint_of(hints: Mapping[str, Record], name: str, trust: float) -> Hint | None:
    """Return the hints of an image, None if there are none."""
    return Hint(hints[name], trust) if name in hints else None


def said(hints: Reader, name: str, size: tuple[int, int]) -> np.ndarray:
    """Return which pixels of an image of `size` (H,W) a person labeled, bool [H,W]."""
    return hints.array(name, "pixels") != IGNORE if name in hints else np.zeros(size, bool)


def is_corrected(record: Record) -> bool:
    """Return whether a person said anything about an image, so that scores leave it out."""
    said = bool((record["pixels"] != IGNORE).any())
    return said or bool((record["boxes"][:, 2] > 0).any())


def _reduced(values: np.ndarray, stride: int, grid: tuple[int, ...]) -> np.ndarray:
    """Return means over cells f4 [h,w] of values [H,W], whose last row and column are repeated."""
    full = np.asarray(values, np.float32)
    if stride == 1:
        return full
    height, width = (side * stride for side in grid)
    padded = np.pad(full, ((0, height - full.shape[0]), (0, width - full.shape[1])), "edge")
    return padded.reshape(grid[0], stride, grid[1], stride).mean((1, 3))
