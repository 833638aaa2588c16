"""Polygons: filled by OpenCV they are the masks that were traced."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings

from pipeline.export.polygons import edge_polygons, join, trace
from tests.support.exported import MASKS

RING = np.pad(np.zeros((3, 3), bool), 2, constant_values=True)
SHAPES = {
    "nothing": np.zeros((4, 5), bool),
    "one pixel": np.eye(1, dtype=bool),
    "full": np.ones((5, 7), bool),
    "row": np.ones((1, 6), bool),
    "dashes": np.arange(11)[None] % 3 < 2,
    "diagonal": np.eye(6, dtype=bool),
    "chessboard": np.indices((7, 8)).sum(0) % 2 == 0,
    "ring": RING,
    "ring in a ring": np.pad(np.pad(RING, 1), 1, constant_values=True),
    "two holes": np.concatenate([RING, RING], 1),
}


def fill(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The union of polygons as OpenCV fills each, bool [H,W]."""
    filled = np.zeros(size, bool)
    for polygon in polygons:
        assert len(polygon) >= 3
        filled |= cv2.fillPoly(np.zeros(size, np.uint8), [polygon.astype(np.int32)], 1) > 0
    return filled


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_restored(shape: str) -> None:
    mask = SHAPES[shape]
    np.testing.assert_array_equal(fill(trace(mask), mask.shape), mask)


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_any_mask_is_covered_by_one_polygon_per_part(mask: np.ndarray) -> None:
    polygons = trace(mask)
    assert len(polygons) == cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
    assert fill(polygons, mask.shape)[mask].all()
    if polygons:
        assert fill([join(polygons)], mask.shape)[mask].all()


def test_parts_are_joined_by_a_line_between_the_nearest_corners() -> None:
    mask = np.zeros((5, 12), bool)
    mask[1:4, 1:3] = mask[3, 6:9] = True
    bridge = np.zeros_like(mask)
    bridge[3, 3:6] = True
    np.testing.assert_array_equal(fill([join(trace(mask))], mask.shape), mask | bridge)


def test_edges_lie_a_quarter_of_a_pixel_inside() -> None:
    mask = np.zeros((9, 12), bool)
    mask[2:5, 3:10] = True
    (polygon,) = edge_polygons(mask)
    assert polygon.min(0).tolist() == [3.25, 2.25]
    assert polygon.max(0).tolist() == [9.75, 4.75]
