import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.labelling import assign
from pipeline.metrics.semantic import (
    Confusion,
    ThresholdCurve,
    image_row,
    intersection_over_union,
    mean_iou,
    miou_interval,
    threshold_grid,
)

CLASSES = ("cat", "dog", "cow")


def maps(seed: int, shape: tuple[int, int] = (13, 17)) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.choice(np.array([0, 1, 2, 3, 255], np.uint8), shape)
    prediction = generator.choice(np.array([0, 1, 2, 3, 255], np.uint8), shape)
    return truth, prediction


def test_hand_counted_image() -> None:
    truth = np.array([[0, 0, 1, 1], [2, 2, 255, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 0], [2, 255, 1, 3]], np.uint8)
    confusion = Confusion(CLASSES)
    confusion.add(truth, prediction)
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(confusion.counts, expected)
    scores = confusion.scores()
    assert scores["per_class"]["background"]["iou"] == pytest.approx(1 / 4)
    assert scores["per_class"]["cat"]["iou"] == pytest.approx(1 / 3)
    images = {"image_precision": 1.0, "image_recall": 1.0}
    assert scores["per_class"]["dog"] == {"iou": 0.5, "precision": 1.0, "recall": 0.5, **images}
    assert set(scores["per_class"]["cow"].values()) == {None}
    assert scores["miou"] == pytest.approx((1 / 4 + 1 / 3 + 1 / 2) / 3)
    assert scores["pixel_accuracy"] == 0.5
    assert scores["miou"] == confusion.miou
    json.dumps(scores, allow_nan=False)


def test_images_have_a_class_if_a_pixel_has_it() -> None:
    confusion = Confusion(CLASSES)
    for truth, prediction in (([1, 0, 0], [0, 1, 0]), ([1, 1, 0], [2, 0, 0]), ([0, 255], [0, 1])):
        confusion.add(np.array([truth], np.uint8), np.array([prediction], np.uint8))
    cat, dog = (confusion.scores()["per_class"][name] for name in ("cat", "dog"))
    assert (cat["image_precision"], cat["image_recall"]) == (1, 0.5)
    assert (dog["image_precision"], dog["image_recall"]) == (0, None)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_counts_match_a_loop_over_pixels(seed: int) -> None:
    truth, prediction = maps(seed, (5, 6))
    expected = np.zeros((4, 4), np.int64)
    for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if t != 255:
            expected[t, 0 if p == 255 else p] += 1
    np.testing.assert_array_equal(Confusion(CLASSES).add(truth, prediction), expected)


def test_perfect_prediction_is_one_and_nothing_is_undefined() -> None:
    truth = maps(3)[0]
    assert mean_iou(Confusion(CLASSES).add(truth, truth)) == 1
    assert np.isnan(Confusion(CLASSES).miou)
    assert Confusion(CLASSES).scores()["miou"] is None
    assert np.isnan(intersection_over_union(np.zeros((2, 2), np.int64))).all()


def test_image_row_tells_wrong_class_from_wrong_place() -> None:
    truth = np.array([[1, 1, 0, 0]], np.uint8)
    wrong_class = image_row("a", Confusion(CLASSES).add(truth, np.array([[2, 2, 0, 0]], np.uint8)))
    assert wrong_class == {"id": "a", "miou": pytest.approx(1 / 3), "foreground_iou": 1.0}
    unknown = image_row("b", Confusion(CLASSES).add(np.full((1, 4), 255, np.uint8), truth))
    assert unknown == {"id": "b", "miou": None, "foreground_iou": None}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@given(st.integers(0, 10_000), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_curve_equals_the_naive_confusion_at_every_threshold(
    dtype: type, seed: int, K: int
) -> None:
    generator = np.random.default_rng(seed)
    grid = threshold_grid(0.155)
    curve = ThresholdCurve(CLASSES, grid)
    naive = np.zeros((len(grid), 4, 4), np.int64)
    for shape in [(9, 11), (6, 5)]:
        truth = maps(seed, shape)[0]
        # Multiples of 0.01 tie with the thresholds and with one another.
        cams: np.ndarray = (generator.integers(0, 100, (K, *shape)) / 100).astype(dtype)
        labels = generator.permutation(3)[:K].tolist()
        curve.add(truth, cams, labels)
        names = np.array([0, *(c + 1 for c in labels)], np.uint8)
        for i, t in enumerate(grid):
            background = np.full((1, *shape), t, np.float32)
            prediction = names[np.concatenate([background, cams.astype(np.float32)]).argmax(0)]
            np.testing.assert_array_equal(assign(cams, labels, t), prediction)
            naive[i] += Confusion(CLASSES).add(truth, prediction)
    np.testing.assert_array_equal(curve.counts(), naive)
    scores = mean_iou(naive).tolist()
    assert curve.best() == (grid[int(np.argmax(scores))], max(scores))


def test_the_best_threshold_is_the_lowest_that_the_table_cannot_tell_from_it() -> None:
    truth, cams = np.zeros((1000, 1000), np.uint8), np.zeros((1, 1000, 1000), np.float32)
    truth[500:], cams[:, 500:], cams[:, 0, 0] = 1, 0.6, 0.4
    curve = ThresholdCurve(CLASSES, threshold_grid())
    curve.add(truth, cams, [0])
    scores = [row["miou"] or 0 for row in curve.curve()]
    assert scores[0] < max(scores), "one pixel of a million is better above 0.4"
    assert curve.best() == (curve.thresholds[0], scores[0])
    assert [row["miou"] for row in curve.curve()] == scores


def test_bad_input_says_what_is_wrong() -> None:
    good = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="prediction has label 4"):
        Confusion(CLASSES).add(good, np.full((2, 2), 4, np.uint8))
    with pytest.raises(ValueError, match="truth has label 9"):
        Confusion(CLASSES).add(np.full((2, 2), 9, np.uint8), good)
    with pytest.raises(ValueError, match="differ in size"):
        Confusion(CLASSES).add(good, np.zeros((2, 3), np.uint8))


def test_the_interval_is_that_of_the_mean_where_all_images_weigh_the_same() -> None:
    """IoU 0.2 or 0.8 of the one class of 100 images, 0 of the background: 0.25 +- 1.96 * 0.015."""
    right, wrong = np.array([[[0, 2], [0, 8]], [[0, 8], [0, 2]]])
    assert miou_interval(np.stack([right] * 9)) == (0.4, 0.4)
    found = miou_interval(np.stack([right, wrong] * 50))
    assert found == pytest.approx((0.25 - 1.96 * 0.015, 0.25 + 1.96 * 0.015), abs=0.003)
