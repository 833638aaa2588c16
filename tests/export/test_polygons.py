"""Outlines: polygons filled by COCO's rasterizer and by OpenCV are the masks they came from."""

import cv2
import numpy as np
import pytest
from faster_coco_eval.core import mask as coder
from hypothesis import given, settings

from pipeline.export.polygons import edge_polygons, join, pixel_polygons
from tests.support.exported import MASKS, blob

RING = np.pad(np.zeros((3, 3), bool), 2, constant_values=True)
SHAPES = {
    "nothing": np.zeros((4, 5), bool),
    "one pixel": np.eye(1, dtype=bool),
    "corner pixel": np.arange(12).reshape(3, 4) == 11,
    "full": np.ones((5, 7), bool),
    "row": np.ones((1, 6), bool),
    "column": np.ones((6, 1), bool),
    "dashes": np.arange(11)[None] % 3 < 2,
    "diagonal": np.eye(6, dtype=bool),
    "other diagonal": np.eye(6, dtype=bool)[::-1].copy(),
    "chessboard": np.indices((7, 8)).sum(0) % 2 == 0,
    "ring": RING,
    "ring in a ring": np.pad(np.pad(RING, 1), 1, constant_values=True),
    "two holes side by side": np.concatenate([RING, RING], 1),
    "two holes one below the other": np.concatenate([RING, RING]),
    "holes that touch": np.pad(~np.eye(2, dtype=bool), 1, constant_values=True),
    "touching all borders": np.indices((9, 9)).sum(0) % 8 < 5,
}


def fill_coco(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Polygons as the COCO API fills them, bool [H,W]."""
    if not polygons:
        return np.zeros(size, bool)
    codes = coder.frPyObjects(
        [polygon.ravel().astype(float).tolist() for polygon in polygons], *size
    )
    return coder.decode(coder.merge(codes)).astype(bool)


def fill_opencv(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The union of polygons as OpenCV fills each, bool [H,W]."""
    filled = np.zeros(size, np.uint8)
    for polygon in polygons:
        filled |= cv2.fillPoly(np.zeros(size, np.uint8), [polygon.astype(np.int32)], 1)
    return filled.astype(bool)


def check(mask: np.ndarray) -> None:
    edges, pixels = edge_polygons(mask), pixel_polygons(mask)
    np.testing.assert_array_equal(fill_coco(edges, mask.shape), mask)
    np.testing.assert_array_equal(fill_opencv(pixels, mask.shape), mask)
    parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] - 1
    assert len(edges) == len(pixels) == parts
    assert all(len(polygon) >= 3 for polygon in [*edges, *pixels])
    if parts:
        joined = fill_opencv([join(pixels)], mask.shape)
        assert joined[mask].all(), "nothing of the mask goes when its parts are joined"
        if parts == 1:
            np.testing.assert_array_equal(joined, mask)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_come_back(shape: str) -> None:
    check(SHAPES[shape])


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_any_mask_comes_back(mask: np.ndarray) -> None:
    check(mask)


@pytest.mark.parametrize("seed", range(3))
def test_large_blobs_come_back(seed: int) -> None:
    check(blob((211, 307), seed, fineness=30))


def test_corners_of_a_box_by_hand() -> None:
    mask = np.zeros((6, 9), bool)
    mask[1:4, 2:7] = True
    assert edge_polygons(mask)[0].tolist() == [[2, 1], [7, 1], [7, 4], [2, 4]]
    assert pixel_polygons(mask)[0].tolist() == [[2, 1], [6, 1], [6, 3], [2, 3]]


def test_parts_are_joined_by_the_shortest_line() -> None:
    mask = np.zeros((5, 12), bool)
    mask[1:4, 1:3] = mask[3, 6:9] = True
    bridge = np.zeros_like(mask)
    bridge[3, 3:6] = True
    np.testing.assert_array_equal(
        fill_opencv([join(pixel_polygons(mask))], mask.shape), mask | bridge
    )


@settings(max_examples=100, deadline=None)
@given(MASKS.filter(np.any))
def test_the_joining_lines_are_altogether_shortest(mask: np.ndarray) -> None:
    parts = pixel_polygons(mask)
    joined = join(parts)
    assert len(joined) == sum(map(len, parts)) + 2 * (len(parts) - 1)
    lines = perimeter(joined) - sum(map(perimeter, parts))
    reached, left, shortest = [parts[0]], parts[1:], 0.0
    while left:
        gaps = [min(distance(part, other) for other in reached) for part in left]
        shortest += min(gaps)
        reached.append(left.pop(int(np.argmin(gaps))))
    assert lines == pytest.approx(2 * shortest)


def perimeter(polygon: np.ndarray) -> float:
    """Length of the way round."""
    return float(np.hypot(*(polygon - np.roll(polygon, 1, 0)).T).sum())


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of the nearest corners."""
    return float(np.hypot(*(a[:, None] - b[None]).T).min())


def test_stairs_take_one_corner_a_step() -> None:
    stairs = np.tri(20, dtype=bool)
    assert len(pixel_polygons(stairs)[0]) <= 26, "20 steps and the ends"
    np.testing.assert_array_equal(fill_opencv(pixel_polygons(stairs), stairs.shape), stairs)
