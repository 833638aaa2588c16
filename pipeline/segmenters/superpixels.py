"""Segments without any weights: graph-based superpixels (Felzenszwalb and Huttenlocher, IJCV 2004), as scikit-image has them."""

from dataclasses import dataclass

import cv2
import numpy as np
from skimage.segmentation import felzenszwalb

from pipeline.segmenters.regions import Regions, adjacency
from pipeline.store import Record

SOFT = 10.0
"""Difference in CIELAB at which a segment counts as half as stable as one that nothing resembles."""


@dataclass(frozen=True, slots=True)
class Superpixels:
    """Divides pictures into regions of even colour.

    embeddings: whether to store the regions' colours, from which prompts are answered; side: larger pictures are divided at this longer
    side in pixels; scale: larger gives larger regions; sigma: standard deviation of the smoothing in pixels; min_size: least area
    in pixels.
    """

    embeddings: bool
    side: int
    scale: float
    sigma: float
    min_size: int

    def segment(self, image: np.ndarray) -> Record:
        """The segments of a picture uint8 [H,W,3]: ids u2 [H,W] from 1 on, no pixel without; stability, iou f4 [S]; embeddings.

        stability: d / (d + 10) with d the difference in colour to the neighbour most like it: how far a segment is from being one
        with another. iou: 1, as nothing here predicts it. embeddings: f2 [3,S,1], mean CIELAB colours, or empty.
        """
        segments = self._divide(image)
        colours = mean_colours(image, segments)
        near = nearest(adjacency(segments), colours)
        return {
            "segments": segments,
            "stability": (1 - SOFT / (near + SOFT)).astype(np.float32),
            "iou": np.ones(len(near), np.float32),
            "embeddings": colours.T[:, :, None].astype(np.float16)
            if self.embeddings
            else np.zeros((0, 0, 0), np.float16),
        }

    def _divide(self, image: np.ndarray) -> np.ndarray:
        """Ids u2 [H,W], found on the picture at `side` and enlarged."""
        height, width = image.shape[:2]
        factor = min(1.0, self.side / max(height, width))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        small = image if factor == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        ids = felzenszwalb(small, scale=self.scale, sigma=self.sigma, min_size=self.min_size) + 1
        return cv2.resize(ids.astype(np.uint16), (width, height), interpolation=cv2.INTER_NEAREST)


def mean_colours(image: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Mean CIELAB colours f8 [S,3] of the segments 1..S [H,W] of a picture uint8 [H,W,3]."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    ids = segments.ravel()
    sums = np.stack([np.bincount(ids, channel)[1:] for channel in lab.T], 1)
    return sums / np.bincount(ids)[1:, None]


def nearest(regions: Regions, colours: np.ndarray) -> np.ndarray:
    """The smallest difference in colour of each region to a neighbour, f8 [S]; infinite for a region without any."""
    differences = regions.differences(colours)
    smallest = np.full(len(colours), np.inf)
    for side in (0, 1):
        np.minimum.at(smallest, regions.pairs[:, side], differences)
    return smallest
