"""Confident seeds from class activation maps: two thresholds, each refined by the dense CRF (IRNet,
section 4.2 and the authors' code).
"""

from collections.abc import Mapping

import numpy as np

from pipeline.core.artifacts import IGNORE
from pipeline.labelling import assign, upsample
from pipeline.labelling.crf import label_refiner
from pipeline.labelling.hints import Hint


def seed_map(
    image: np.ndarray,
    cams: np.ndarray,
    labels: np.ndarray,
    *,
    foreground: float,
    background: float,
    crf: Mapping[str, float],
    hint: Hint | None = None,
) -> np.ndarray:
    """Return the seeds of an image, uint8 [H,W]: c + 1 for confident foreground of class c, 0 for
    confident background, IGNORE elsewhere.

    Foreground is the CRF-refined argmax over [foreground, cams]; background is where the refined
    argmax over [background, cams] is no class either. An image without classes is background
    throughout.

    Args:
        image: uint8 [H,W,3].
        cams: [K,h,w] in [0,1] on the stride-4 grid.
        labels: their class ids [K].
        foreground: threshold above which a class is confident.
        background: threshold below which background is confident.
        crf: section `seeds.crf` of the parameters.
        hint: what is known about its pixels; a person's labels are seeds as they are.
    """
    height, width = image.shape[:2]
    if len(labels) == 0:
        return np.zeros((height, width), np.uint8)
    full = upsample(cams, (height, width))
    if hint is not None:
        full = hint.applied(full, labels)
    refine = label_refiner(image, len(labels) + 1, crf)
    rows = np.arange(len(labels))
    sure, possible = (refine(assign(full, rows, value)) for value in (foreground, background))
    keys = np.concatenate([[0], labels.astype(np.int64) + 1])
    seeds = np.where(sure > 0, keys[sure], np.where(possible == 0, 0, IGNORE)).astype(np.uint8)
    return seeds if hint is None else hint.settled(seeds)
