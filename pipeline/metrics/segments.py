"""How well class-agnostic segments follow the borders of labeled objects."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from pipeline.core.artifacts import IGNORE


@dataclass(slots=True)
class SegmentScores:
    """Boundary recall and achievable segmentation accuracy over images; all ratios of summed
    counts.

    tolerance: pixels (Chebyshev) within which a border counts as found.
    """

    tolerance: int = 2
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("border", "found", "pixels", "right"), 0)
    )

    def add(self, labels: np.ndarray, segments: np.ndarray) -> None:
        """Count an image: label map u1 [H,W] (255 is left out), segments [H,W]; segment 0 counts as
        one, like any other.
        """
        known = labels != IGNORE
        between = borders(labels) & cv2.erode(
            known.astype(np.uint8), np.ones((3, 3), np.uint8)
        ).astype(bool)
        near = cv2.dilate(
            borders(segments).astype(np.uint8), np.ones((2 * self.tolerance + 1,) * 2, np.uint8)
        ).astype(bool)
        pairs = segments[known].astype(np.int64) * 256 + labels[known]
        values, sizes = np.unique(pairs, return_counts=True)
        best = np.zeros(int(values[-1] // 256) + 1 if len(values) else 0, np.int64)
        np.maximum.at(best, values // 256, sizes)
        for name, number in {
            "border": between.sum(),
            "found": (between & near).sum(),
            "pixels": known.sum(),
            "right": best.sum(),
        }.items():
            self.counts[name] += int(number)

    def compute(self) -> dict[str, float]:
        """boundary_recall: share of the labels' border pixels with a segment's border near (Martin
        et al., PAMI 2004); achievable_accuracy: share of pixels that are right if every segment
        takes its commonest label (Liu et al., CVPR 2011).
        """
        return {
            "boundary_recall": self.counts["found"] / max(self.counts["border"], 1),
            "achievable_accuracy": self.counts["right"] / max(self.counts["pixels"], 1),
        }


def borders(ids: np.ndarray) -> np.ndarray:
    """Pixels [H,W] (bool) whose right or lower neighbor has another id, and these neighbors."""
    found = np.zeros(ids.shape, bool)
    right, below = ids[:, :-1] != ids[:, 1:], ids[:-1] != ids[1:]
    found[:, :-1] |= right
    found[:, 1:] |= right
    found[:-1] |= below
    found[1:] |= below
    return found
