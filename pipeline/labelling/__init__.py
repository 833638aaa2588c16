"""From maps to labels: dense CRF, seeds, pseudo-labels, segment voting."""

from collections.abc import Sequence

import cv2
import numpy as np

STRIDE = 4
"""Pixels per cell of the grid on which class maps, boundaries and walked maps live."""


def upsample(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Upsample maps [K,h,w] of the stride-4 grid to the image's size (H,W): f4 [K,H,W].

    Bilinear about the centers of the cells, cropped to the image. Seeds, pseudo-labels, scores and
    drawings all use this function, so that a drawn map is the scored one.
    """
    if len(maps) == 0:
        return np.zeros((0, *size), np.float32)
    full = (cv2.resize(m, None, fx=STRIDE, fy=STRIDE) for m in np.asarray(maps, np.float32))
    return np.stack([m[: size[0], : size[1]] for m in full])


def assign(maps: np.ndarray, classes: Sequence[int] | np.ndarray, background: float) -> np.ndarray:
    """Return the label map uint8 [H,W] of class maps: the argmax over [background, maps].

    On a tie the background wins, then the class that comes first (the authors' eval_cam). Labels
    and scores use this function, so that what is scored is what is thresholded.

    Args:
        maps: float [K,H,W], compared in float32.
        classes: their ids [K].
        background: score of the background.
    """
    if len(maps) == 0:
        return np.zeros(maps.shape[1:], np.uint8)
    single, keys = maps.astype(np.float32, copy=False), np.asarray(classes, np.uint8) + np.uint8(1)
    foreground = single.max(0) > np.float32(background)
    return np.where(foreground, keys[single.argmax(0)], np.uint8(0))
