"""Confident seeds from class activation maps: two thresholds, each refined by the dense CRF (IRN's
specification, section 4).
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

from pipeline.core.artifacts import IGNORE
from pipeline.labelling.crf import label_refiner


def seed_map(
    image: np.ndarray,
    cams: np.ndarray,
    labels: np.ndarray,
    *,
    foreground: float,
    background: float,
    crf: Mapping[str, float],
) -> np.ndarray:
    """Label map uint8 [H,W]: c+1 where foreground is sure, 0 where background is sure, IGNORE
    elsewhere.

    image: uint8 [H,W,3]; cams: [K,h,w] in [0,1] on the stride-4 grid; labels: their K class ids.
    Sure foreground is the CRF-refined argmax over [foreground, cams]; sure background is where the
    refined argmax over [background, cams] is none of the classes either. An image without classes
    is background throughout.
    """
    height, width = image.shape[:2]
    if len(labels) == 0:
        return np.zeros((height, width), np.uint8)
    full = upsample(cams, (height, width))
    refine = label_refiner(image, len(labels) + 1, crf)
    sure, possible = (refine(_argmax(full, threshold)) for threshold in (foreground, background))
    keys = np.concatenate([[0], labels.astype(np.int64) + 1])
    return np.where(sure > 0, keys[sure], np.where(possible == 0, 0, IGNORE)).astype(np.uint8)


def upsample(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps [K,h,w] of the stride-4 grid at full resolution, f4 [K,H,W]: bilinear, cropped to the
    image; of no maps none.
    """
    if len(maps) == 0:
        return np.zeros((0, *size), np.float32)
    tensor = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))[None]
    full = F.interpolate(tensor, scale_factor=4, mode="bilinear", align_corners=False)
    return full[0, :, : size[0], : size[1]].numpy()


def _argmax(full: np.ndarray, threshold: float) -> np.ndarray:
    """Argmax over [threshold, maps]: 0 where no map is above the threshold, k+1 for map k."""
    return np.where(full.max(0) > threshold, full.argmax(0) + 1, 0)
