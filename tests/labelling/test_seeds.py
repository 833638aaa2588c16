"""Seeds: two thresholds, what lies between, class ids, and images without classes."""

from collections.abc import Mapping

import numpy as np
import pytest

from pipeline.labelling import upsample
from pipeline.labelling.seeds import seed_map
from pipeline.params import presets

OFF: Mapping[str, float] = {
    **presets.load("voc12")["seeds"]["crf"],
    "iterations": 0,
}
ON = {**OFF, "iterations": 10}
SIZE = (30, 41)


def seeds(cams: np.ndarray, labels: list[int], crf: Mapping[str, float] = OFF) -> np.ndarray:
    image = np.full((*SIZE, 3), 120, np.uint8)
    return seed_map(
        image, cams, np.array(labels, np.uint8), foreground=0.3, background=0.05, crf=crf
    )


def constant(*values: float) -> np.ndarray:
    return np.stack([np.full((8, 11), value, np.float16) for value in values])


@pytest.mark.parametrize("crf", [OFF, ON])
@pytest.mark.parametrize(
    ("value", "label"), [(0.9, 8), (0.31, 8), (0.29, 255), (0.06, 255), (0.04, 0), (0, 0)]
)
def test_thresholds_on_a_constant_map(value: float, label: int, crf: Mapping[str, float]) -> None:
    result = seeds(constant(value), [7], crf)
    assert (result.shape, result.dtype) == (SIZE, np.uint8)
    assert set(np.unique(result).tolist()) == {label}


def test_value_at_a_threshold_is_not_above_it() -> None:
    half = np.full((1, 8, 11), 0.5, np.float32)
    image = np.zeros((*SIZE, 3), np.uint8)
    result = seed_map(image, half, np.array([0]), foreground=0.5, background=0.5, crf=OFF)
    assert not result.any()


def test_between_the_thresholds_is_ignored() -> None:
    """A ramp from 0 to 1: background, ignore, class, in this order and nothing else."""
    ramp = np.broadcast_to(np.linspace(0, 1, 11, dtype=np.float32), (1, 8, 11))
    row = seeds(ramp, [2])[4]
    full = upsample(ramp, SIZE)[0, 4]
    assert (row == np.where(full > 0.3, 3, np.where(full > 0.05, 255, 0))).all()
    assert set(row.tolist()) == {0, 3, 255}


@pytest.mark.defect("irn-12")
@pytest.mark.parametrize("label", [0, 19, 20, 80, 253])
def test_any_class_id_is_mapped(label: int) -> None:
    assert set(np.unique(seeds(constant(0.1, 0.9), [253 - label, label])).tolist()) == {label + 1}


@pytest.mark.defect("irn-7")
@pytest.mark.parametrize("crf", [OFF, ON])
def test_image_without_classes_is_background(crf: Mapping[str, float]) -> None:
    result = seeds(np.zeros((0, 8, 11), np.float16), [], crf)
    assert (result.shape, result.dtype) == (SIZE, np.uint8)
    assert not result.any()


def test_crf_moves_seeds_to_the_colors() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = (220, 180, 40)
    cams = np.zeros((1, 10, 15), np.float32)
    cams[:, :, 9:] = 1  # starts six pixels too far to the right
    result = seed_map(image, cams, np.array([3]), foreground=0.3, background=0.05, crf=ON)
    assert (result[:, 31:] == 4).all()
    assert (result[:, :29] == 0).all()


@pytest.mark.defect("irn-18")
def test_maps_are_upsampled_about_the_centers_of_their_cells() -> None:
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None] * 4 + 2, (2, 8, 11))
    full = upsample(ramp, SIZE)
    assert full.shape == (2, *SIZE)
    assert np.abs(full[:, 2:30] - (np.arange(2, 30)[:, None] + 0.5)).max() < 1e-5
