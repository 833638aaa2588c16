"""Polygons of masks, traced by OpenCV along the centers of the outermost pixels.

Filled with OpenCV's fillPoly they restore the mask but for the lines that join parts. COCO's
rasterizer takes edges between pixels instead, for which edge_polygons lie a quarter of a pixel
inside the outermost pixels. Polygons are approximate: run lengths (RLE) are exact for every reader.
"""

import cv2
import numpy as np
from scipy.spatial import cKDTree


def trace(mask: np.ndarray) -> list[np.ndarray]:
    """Trace a mask bool [H,W]; return one polygon int [n,2] (x, y), n >= 3, per connected part.

    A hole is cut out by a line of no width that leads from the outer contour to it and back.
    """
    contours, hierarchy = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    holes: dict[int, list[np.ndarray]] = {}
    for number, contour in enumerate(contours):
        parent = int(hierarchy[0, number, 3])
        if parent < 0:
            holes.setdefault(number, [])
        else:
            holes.setdefault(parent, []).append(contour[:, 0])
    return [_pad(join([contours[number][:, 0], *holes[number]])) for number in sorted(holes)]


def edge_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Trace a mask bool [H,W] in COCO's coordinates, where pixel x covers x to x + 1.

    Returns polygons float [n,2]. The mask is traced at twice its size, so that lines one pixel wide
    have an area.
    """
    return [(polygon + 0.5) / 2 for polygon in trace(mask.repeat(2, axis=0).repeat(2, axis=1))]


def join(polygons: list[np.ndarray]) -> np.ndarray:
    """Join polygons int [n,2] to one by lines there and back between their nearest corners."""
    joined = polygons[0]
    for polygon in polygons[1:]:
        distances, nearest = cKDTree(joined).query(polygon)
        there = int(distances.argmin())
        here = int(nearest[there])
        around = np.roll(polygon, -there, axis=0)
        joined = np.concatenate([joined[: here + 1], around, around[:1], joined[here:]])
    return joined


def _pad(polygon: np.ndarray) -> np.ndarray:
    """Repeat the last point of a polygon of a pixel or a line, as readers expect three points."""
    return np.concatenate([polygon, np.repeat(polygon[-1:], max(0, 3 - len(polygon)), axis=0)])
