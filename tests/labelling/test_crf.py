"""The dense CRF: what it cleans, that reused kernels change nothing, and the cases where it has
nothing to do.
"""

import sys
from collections.abc import Mapping

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.labelling.crf import label_refiner, refine_probabilities
from pipeline.params import presets

IRN: Mapping[str, float] = presets.load("voc12")["seeds"]["crf"]


def two_colors(
    height: int = 40, width: int = 50, border: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """An image with two colors and its true labels."""
    truth = np.zeros((height, width), np.int64)
    truth[:, border:] = 1
    return np.array([[200, 30, 30], [20, 60, 180]], np.uint8)[truth], truth


def noisy(truth: np.ndarray, share: float, labels: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(truth.shape) < share, rng.integers(0, labels, truth.shape), truth)


def test_noisy_map_is_cleaned_to_the_color_border() -> None:
    image, truth = two_colors()
    given = noisy(truth, 0.3, 2)
    assert (given != truth).mean() > 0.1
    assert (label_refiner(image, 2, IRN)(given) == truth).all()


def test_without_appearance_the_colors_do_not_matter() -> None:
    image, truth = two_colors()
    settings = {**IRN, "bilateral_weight": 0}
    given = noisy(truth, 0.2, 2)
    gray = np.full_like(image, 128)
    assert (
        label_refiner(image, 2, settings)(given) == label_refiner(gray, 2, settings)(given)
    ).all()


@pytest.mark.defect("irn-27")
def test_reused_kernels_equal_fresh_ones() -> None:
    image, truth = two_colors()
    image = np.random.default_rng(1).normal(image, 12).clip(0, 255).astype(np.uint8)
    maps = [noisy(truth, 0.4, 3, seed) for seed in range(3)]
    reused = label_refiner(image, 3, IRN)
    once = [reused(label_map) for label_map in maps]
    fresh = [label_refiner(image, 3, IRN)(label_map) for label_map in maps]
    again = [reused(label_map) for label_map in reversed(maps)][::-1]
    for a, b, c, given in zip(once, fresh, again, maps, strict=True):
        assert (a == b).all()
        assert (a == c).all()
        assert (a != given).any()
    assert (once[0] != once[1]).any()


def test_unary_is_the_confidence_and_the_rest_shared() -> None:
    """Without pairwise terms, the refined probabilities are the unary's: argmax keeps the map for
    confidence above 1/L.
    """
    image, truth = two_colors()
    settings = {**IRN, "smooth_weight": 0, "bilateral_weight": 0}
    given = noisy(truth, 0.5, 4)
    assert (label_refiner(image, 4, settings)(given) == given).all()
    doubtful = label_refiner(image, 4, {**settings, "confidence": 0.1})(given)
    assert (doubtful != given).all()


@pytest.mark.defect("irn-7")
@pytest.mark.parametrize("labels", [0, 1])
def test_one_label_leaves_nothing_to_refine(labels: int) -> None:
    image, truth = two_colors()
    zeros = np.zeros_like(truth)
    assert label_refiner(image, labels, IRN)(zeros) is zeros


def test_no_iterations_change_nothing_and_need_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    image, truth = two_colors()
    settings = {**IRN, "iterations": 0}
    assert label_refiner(image, 2, settings)(truth) is truth
    scores = np.random.default_rng(0).random((2, *truth.shape), np.float32)
    assert refine_probabilities(image, scores, settings) is scores
    with pytest.raises(UserError, match="pip install --no-build-isolation pydensecrf2"):
        label_refiner(image, 2, IRN)


@pytest.mark.parametrize("labels", [1, 2, 5])
def test_probabilities_stay_probabilities_of_the_same_shape(labels: int) -> None:
    image, truth = two_colors(17, 23, 9)
    scores = np.random.default_rng(0).random((labels, *truth.shape), np.float32)
    scores /= scores.sum(0)
    refined = refine_probabilities(image, scores, IRN)
    assert (refined.shape, refined.dtype) == (scores.shape, np.float32)
    assert np.abs(refined.sum(0) - 1).max() < 1e-4
    assert refined.min() >= 0


def test_probabilities_are_cleaned_to_the_color_border_and_zeros_are_taken() -> None:
    image, truth = two_colors()
    certain = np.stack([truth == 0, truth == 1]).astype(np.float32)
    doubtful = 0.4 * certain + 0.6 * np.random.default_rng(0).random((1, *truth.shape), np.float32)
    doubtful[1] = 1 - doubtful[0]
    assert (doubtful.argmax(0) != truth).any()
    assert (refine_probabilities(image, doubtful, IRN).argmax(0) == truth).all()
    assert (refine_probabilities(image, certain, IRN).argmax(0) == truth).all()
