"""How far two results agree: the numbers by hand."""

import numpy as np
import pytest

from pipeline.onnx import agreement


def instances(*rows: tuple[int, int, slice]) -> list[np.ndarray]:
    """Results of (image, class, columns of a 4 x 10 mask)."""
    masks = np.zeros((len(rows), 4, 10), bool)
    for mask, (_, _, columns) in zip(masks, rows, strict=True):
        mask[:, columns] = True
    images, classes = (np.array([row[n] for row in rows], np.int64) for n in (0, 1))
    return [images, classes, np.ones(len(rows), np.float32), masks]


def test_labels_that_differ_count_on_both_sides() -> None:
    ours = [np.zeros((1, 10, 10), np.uint8)]
    theirs = [ours[0].copy()]
    assert agreement.of_labels(ours, theirs) == 1
    theirs[0][0, 0, :5] = 3
    assert agreement.of_labels(ours, theirs) == pytest.approx(95 / 105)


def test_instances_agree_in_any_order() -> None:
    rows = (0, 1, slice(0, 4)), (0, 1, slice(2, 8)), (1, 0, slice(0, 4))
    assert agreement.of_instances(instances(*rows), instances(*rows[::-1])) == 1
    assert agreement.of_instances(instances(), instances()) == 1


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((0, 1, slice(0, 5)), 4 / 5),
        ((0, 2, slice(0, 4)), 0),
        ((1, 1, slice(0, 4)), 0),
    ],
)
def test_other_pixels_classes_and_images_disagree(
    other: tuple[int, int, slice], expected: float
) -> None:
    ours = instances((0, 1, slice(0, 4)))
    assert agreement.of_instances(ours, instances(other)) == pytest.approx(expected)
    assert agreement.of_instances(ours, instances()) == 0


def test_a_second_mask_on_the_same_pixels_counts() -> None:
    twice = instances((0, 1, slice(0, 4)), (0, 1, slice(0, 4)))
    assert agreement.of_instances(instances((0, 1, slice(0, 4))), twice) == pytest.approx(1 / 2)


def test_the_largest_difference() -> None:
    assert agreement.difference(np.array([1.0, 2.0]), np.array([1.5, 2.25])) == 0.5
    assert agreement.difference(np.zeros(0), np.zeros(0)) == 0
    assert agreement.difference(np.zeros(2), np.zeros(3)) == float("inf")
