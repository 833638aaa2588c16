"""Peaks of class maps: maxima, plateaus, borders, distances."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.classifiers.s2c.peaks import peaks


def bumps(*places: tuple[int, int, float], side: int = 96, width: float = 6.0) -> np.ndarray:
    """Gaussian bumps at (y, x) with heights, over nothing."""
    y, x = np.mgrid[:side, :side]
    heights = [h * np.exp(-((y - r) ** 2 + (x - c) ** 2) / (2 * width**2)) for r, c, h in places]
    return np.max(heights, 0)


def test_one_peak_is_exactly_one_point() -> None:
    assert peaks(bumps((40, 50, 1.0)), 0.5, 20).tolist() == [[40, 50]]


@pytest.mark.defect("s2c-peaks")
def test_the_strongest_comes_first_and_never_twice() -> None:
    found = peaks(bumps((20, 20, 0.8), (70, 70, 1.0), (20, 75, 0.6)), 0.5, 20).tolist()
    assert found == [[70, 70], [20, 20], [20, 75]]


def test_maxima_must_exceed_the_threshold() -> None:
    scores = bumps((20, 20, 0.5), (70, 70, 1.0))
    assert peaks(scores, 0.5, 20).tolist() == [[70, 70]]
    assert peaks(scores, 0.49, 20).tolist() == [[70, 70], [20, 20]]


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_the_global_maximum_always_prompts(threshold: float) -> None:
    assert peaks(bumps((33, 44, 1.0), (80, 80, 0.9)), threshold, 20).tolist()[0] == [33, 44]


@pytest.mark.parametrize(("distance", "expected"), [(20, 2), (20.1, 1), (1, 2)])
def test_peaks_keep_their_distance_from_stronger_ones(distance: float, expected: int) -> None:
    found = peaks(bumps((40, 40, 1.0), (52, 56, 0.9), width=3), 0.5, distance)
    assert found.tolist() == [[40, 40], [52, 56]][:expected]


def test_a_weak_peak_that_is_dropped_takes_no_other_with_it() -> None:
    """Distances count from the peaks kept alone: C is near B, B near A, C far from A."""
    found = peaks(bumps((40, 20, 1.0), (40, 35, 0.9), (40, 50, 0.8), width=3), 0.5, 20).tolist()
    assert found == [[40, 20], [40, 50]]


@pytest.mark.defect("s2c-peaks")
@pytest.mark.parametrize("place", [(0, 0), (0, 47), (95, 95), (47, 0), (3, 93)])
def test_peaks_on_the_border_count(place: tuple[int, int]) -> None:
    """The published code drops the strongest inner peak when the maximum lies within 20 pixels of
    the border.
    """
    assert peaks(bumps((*place, 1.0), (50, 50, 0.9)), 0.5, 20).tolist() == [list(place), [50, 50]]


def test_an_empty_map_prompts_nothing() -> None:
    assert peaks(np.zeros((32, 32), np.float32), 0.5, 20).shape == (0, 2)


def test_a_plateau_is_one_point_in_its_middle() -> None:
    scores = np.zeros((64, 64), np.float32)
    scores[10:51, 5:26] = 1
    assert peaks(scores, 0.5, 5).tolist() == [[30, 15]]
    assert peaks(np.ones((64, 64), np.float32), 0.5, 5).shape == (1, 2)


def test_a_hollow_plateau_is_a_point_on_it() -> None:
    scores = np.zeros((64, 64), np.float32)
    scores[8:40, 8:40] = 1
    scores[12:36, 12:36] = 0
    (y, x) = peaks(scores, 0.5, 5)[0]
    assert scores[y, x] == 1


def test_a_shoulder_is_no_peak() -> None:
    """Values that do not rise within 3x3 pixels, but on the plateau's far side, as at the border of
    every enlarged map.
    """
    scores = np.zeros((64, 64), np.float32)
    scores[20:30, 20:30] = 0.8
    scores[20:30, 30:34] = 1
    assert peaks(scores, 0.5, 2).tolist() == [[24, 31]]


def test_a_single_cell_of_a_coarse_map_is_one_point_on_that_cell() -> None:
    """Also in corners, where interpolation leaves a plateau of half a cell."""
    for row in range(4):
        for column in range(4):
            coarse = torch.zeros(1, 1, 4, 4)
            coarse[..., row, column] = 1
            (point,) = peaks(F.interpolate(coarse, (64, 64), mode="bilinear")[0, 0].numpy(), 0.5, 3)
            assert (point // 16).tolist() == [row, column]


def test_every_point_is_a_local_maximum_and_no_point_could_be_added() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        coarse = torch.from_numpy(rng.random((1, 1, 8, 8), np.float32))
        scores = F.interpolate(coarse, (128, 128), mode="bilinear")[0, 0].numpy()
        scores /= scores.max()
        found = peaks(scores, 0.5, 20)
        values = scores[tuple(found.T)]
        around = F.max_pool2d(torch.from_numpy(scores)[None], 3, 1, 1)[0].numpy()
        assert values[0] == 1
        assert (np.diff(values) <= 0).all()
        assert (values == around[tuple(found.T)]).all()
        assert (
            len(found) == 1
            or min(np.hypot(*(a - b)) for a in found for b in found if (a != b).any()) >= 20
        )
        # what is higher than its eight neighbors and was left out lies near a stronger point
        equal = (
            F.unfold(torch.from_numpy(scores)[None, None], 3, padding=1).view(9, 128, 128).numpy()
            == around
        )
        for place in np.argwhere((scores == around) & (equal.sum(0) == 1) & (scores > 0.5)):
            near = np.hypot(*(found - place).T) < 20
            assert (values[near] >= scores[tuple(place)]).any()
