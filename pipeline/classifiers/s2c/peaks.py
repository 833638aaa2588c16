"""Where a class map is strongest: the points that its object's mask is asked for."""

import numpy as np
from scipy import ndimage
from skimage.morphology import local_maxima


def peaks(scores: np.ndarray, threshold: float, distance: float) -> np.ndarray:
    """The local maxima [P,2] (y, x) of a map, the strongest first.

    scores: [H,W], not negative; P is 0 if all are. Kept are the global maximum and the maxima above
    `threshold`, at least `distance` pixels (Euclidean) from every stronger one that is kept. A
    plateau counts once, by its pixel nearest the middle, and only if nothing next to it is higher;
    maxima on the border count like others.
    """
    if scores.max(initial=0) <= 0:
        return np.empty((0, 2), np.intp)
    strong = local_maxima(scores, connectivity=2) & (
        (scores > threshold) | (scores == scores.max())
    )
    candidates = _middles(strong | (scores.min() == scores.max()))
    order = np.argsort(-scores[tuple(candidates.T)], kind="stable")
    kept: list[np.ndarray] = []
    for point in candidates[order]:
        if all(np.hypot(*(point - other)) >= distance for other in kept):
            kept.append(point)
    return np.stack(kept)


def _middles(plateaus: np.ndarray) -> np.ndarray:
    """One pixel (y, x) of each connected part of [H,W]: the nearest to its centroid."""
    parts, count = ndimage.label(plateaus, np.ones((3, 3)))
    middles = []
    for number, box in enumerate(ndimage.find_objects(parts, count), 1):
        pixels = np.argwhere(parts[box] == number)
        nearest = np.square(pixels - pixels.mean(0)).sum(1).argmin()
        middles.append(pixels[nearest] + [span.start for span in box])
    return np.stack(middles)
