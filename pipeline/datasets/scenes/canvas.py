"""A surface that is drawn on in picture units, at any resolution."""

from collections.abc import Sequence

import cv2
import numpy as np

Colour = tuple[int, ...]
Points = np.ndarray

SHIFT = 4  # fractional bits of the coordinates cv2 receives


class Canvas:
    """Pixels and the number of pixels in a unit, so that one drawing serves every scale.

    `pixels` is uint8 [H,W,3] RGB or [H,W]; all coordinates and widths are in units, x right and y down, and
    the corner of the picture is (0, 0).
    """

    def __init__(self, pixels: np.ndarray, unit: float, smooth: bool = True) -> None:
        self.pixels = pixels
        self.unit = unit
        self.line_type = cv2.LINE_AA if smooth else cv2.LINE_8

    @property
    def height(self) -> float:
        """Height in units."""
        return self.pixels.shape[0] / self.unit

    @property
    def width(self) -> float:
        """Width in units."""
        return self.pixels.shape[1] / self.unit

    def _fixed(self, points: Points) -> np.ndarray:
        # cv2 counts from the centre of the first pixel, a picture from its corner
        return np.rint((np.asarray(points) * self.unit - 0.5) * (1 << SHIFT)).astype(np.int32)

    def fill(self, points: Points, colour: Colour) -> None:
        """Fill the polygon `points` [n,2]."""
        cv2.fillPoly(self.pixels, [self._fixed(points)], colour, self.line_type, SHIFT)

    def stroke(self, points: Points, colour: Colour, width: float, closed: bool = False) -> None:
        """Draw the line through `points` [n,2], `width` units wide and at least one pixel."""
        thickness = max(1, round(width * self.unit))
        cv2.polylines(self.pixels, [self._fixed(points)], closed, colour, thickness, self.line_type, SHIFT)

    def fill_all(self, polygons: Sequence[Points], colour: Colour) -> None:
        """Fill every polygon, so that what several cover stays filled."""
        for points in polygons:
            self.fill(points, colour)
