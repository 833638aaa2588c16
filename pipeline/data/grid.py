"""The stride-4 grid on which class maps, boundaries and walked maps live."""

import numpy as np
import torch
from torch.nn import functional as F

STRIDE = 4
"""Pixels per cell."""


def upsample(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Upsample maps [K,h,w] of the stride-4 grid to the image's size (H,W): f4 [K,H,W].

    Bilinear about the centers of the cells, cropped to the image. Seeds, pseudo-labels, scores and
    drawings all use this function, so that a drawn map is the scored one.
    """
    if len(maps) == 0:
        return np.zeros((0, *size), np.float32)
    tensor = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))[None]
    full = F.interpolate(tensor, scale_factor=STRIDE, mode="bilinear", align_corners=False)
    return full[0, :, : size[0], : size[1]].numpy()
