"""Boundary recall and achievable accuracy, by hand."""

import numpy as np
import pytest

from pipeline.metrics.segments import SegmentScores, borders


def scored(labels: np.ndarray, segments: np.ndarray, tolerance: int = 0) -> tuple[float, float]:
    scores = SegmentScores(tolerance)
    scores.add(labels.astype(np.uint8), segments)
    found = scores.compute()
    return found["boundary_recall"], found["achievable_accuracy"]


HALVES = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 6, 0)


def test_segments_that_are_the_labels_are_perfect() -> None:
    assert scored(HALVES, HALVES + 1) == (1, 1)


def test_one_segment_finds_no_border_and_half_of_the_pixels() -> None:
    assert scored(HALVES, np.ones_like(HALVES)) == (0, 0.5)


@pytest.mark.parametrize(
    ("shift", "tolerance", "recall"), [(1, 0, 0.5), (1, 1, 1), (3, 1, 0), (3, 2, 0.5), (3, 3, 1)]
)
def test_tolerance(shift: int, tolerance: int, recall: float) -> None:
    """The labels' border is columns 3 and 4, that of the segments `shift` further right."""
    segments = np.repeat([[1] * (4 + shift) + [2] * (4 - shift)], 6, 0)
    found = scored(HALVES, segments, tolerance)
    assert found == (recall, 1 - shift / 8)


def test_over_segmentation_costs_nothing() -> None:
    every = np.arange(HALVES.size).reshape(HALVES.shape) + 1
    assert scored(HALVES, every) == (1, 1)


def test_ignored_pixels_count_neither_as_border_nor_as_area() -> None:
    labels = HALVES.copy()
    labels[:, 3:5] = 255
    assert scored(labels, np.ones_like(HALVES)) == (0, 0.5)
    scores = SegmentScores()
    scores.add(np.full((4, 4), 255, np.uint8), np.ones((4, 4), np.uint16))
    assert scores.counts == {"border": 0, "found": 0, "pixels": 0, "right": 0}
    assert scores.compute() == {"boundary_recall": 0, "achievable_accuracy": 0}


def test_images_are_summed() -> None:
    scores = SegmentScores(0)
    for segments in (HALVES + 1, np.ones_like(HALVES)):
        scores.add(HALVES.astype(np.uint8), segments)
    assert scores.compute() == {"boundary_recall": 0.5, "achievable_accuracy": 0.75}


def test_borders_are_both_sides() -> None:
    assert borders(np.array([[1, 1, 2], [1, 1, 2]])).tolist() == [[False, True, True]] * 2
