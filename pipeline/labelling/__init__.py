"""From maps to labels: dense CRF, seeds, pseudo-labels, segment voting."""

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
