import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.views import overlays


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (30, 45, 3)).astype(np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((30, 45), np.uint8)
    labels[3:20, 4:18] = 1
    labels[10:28, 18:30] = 2
    labels[:, 40:] = 255
    return labels


def test_colors_differ_and_do_not_depend_on_their_number() -> None:
    few, many = overlays.palette(5), overlays.palette(254)
    assert (few.dtype, few.shape) == (np.uint8, (5, 3))
    np.testing.assert_array_equal(few, many[:5])
    twenty = many[:20].astype(int)
    gaps = np.abs(twenty[:, None] - twenty[None]).sum(-1)[~np.eye(20, dtype=bool)]
    assert gaps.min() > 20


def test_labels_touch_only_what_they_name(image: np.ndarray, labels: np.ndarray) -> None:
    before = image.copy()
    drawn = overlays.labels_over(image, labels)
    assert (drawn.dtype, drawn.shape) == (image.dtype, image.shape)
    np.testing.assert_array_equal(drawn[labels == 0], image[labels == 0])
    for label in (1, 2, 255):
        assert (drawn[labels == label] != image[labels == label]).any(1).mean() > 0.9
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(overlays.labels_over(image, np.zeros_like(labels)), image)


def test_ignored_pixels_are_gray_and_classes_are_not() -> None:
    flat = np.full((16, 16, 3), 128, np.uint8)
    ignored = overlays.labels_over(flat, np.full((16, 16), 255, np.uint8))
    assert (np.ptp(ignored, axis=2) <= 1).all()
    assert len(np.unique(ignored)) == 2
    assert (np.ptp(overlays.labels_over(flat, np.ones((16, 16), np.uint8)), axis=2) > 20).all()


def test_contours_lie_inside_at_the_rim(labels: np.ndarray) -> None:
    black = np.zeros((30, 45, 3), np.uint8)
    drawn = overlays.labels_over(black, labels).sum(2)
    assert drawn[3, 4:17].min() > drawn[10, 10]
    assert drawn[2, 4:17].max() == 0


def test_instances_keep_other_pixels_and_differ_in_color(image: np.ndarray) -> None:
    ids = np.zeros((30, 45), np.uint16)
    ids[2:28, 2:20], ids[2:28, 20:40] = 1, 2
    drawn = overlays.instances_over(image, ids)
    assert (drawn.dtype, drawn.shape) == (image.dtype, image.shape)
    np.testing.assert_array_equal(drawn[ids == 0], image[ids == 0])
    flat = overlays.instances_over(np.zeros_like(image), ids)
    assert (flat[4, 4] != flat[4, 30]).any()
    # A number stands in the middle: white letters with a black rim.
    assert flat[ids == 1].min(0).max() == 0
    assert flat[ids == 1].min(1).max() > 200
    np.testing.assert_array_equal(overlays.instances_over(image, np.zeros_like(ids)), image)


def test_heat_grows_with_the_map_and_leaves_zeros(image: np.ndarray) -> None:
    cam = np.tile(np.linspace(0, 1, 45, dtype=np.float32), (30, 1))
    cam[:, :5] = 0
    drawn = overlays.heat_over(image, cam)
    np.testing.assert_array_equal(drawn[:, :5], image[:, :5])
    brightness = overlays.heat_over(np.zeros_like(image), cam).astype(int).sum(2)[0]
    assert (np.diff(brightness) >= -3).all()
    np.testing.assert_array_equal(
        overlays.heat_over(image, 5 * cam)[:, -5:],
        overlays.heat_over(image, np.ones_like(cam))[:, -5:],
    )


def test_boundaries_are_dark_on_light() -> None:
    drawn = overlays.boundary_map(np.array([[0, 0.5, 1]], np.float16))
    assert drawn.dtype == np.uint8
    assert drawn[0, 0].tolist() == [255, 255, 255]
    assert drawn[0, 2].max() < 60
    assert drawn[0, 0].sum() > drawn[0, 1].sum() > drawn[0, 2].sum()


def hue(displacement: tuple[float, float], limit: float = 1) -> float:
    color = (
        overlays.displacement_map(np.array(displacement, np.float32).reshape(2, 1, 1), limit)[0, 0]
        / 255
    )
    return colorsys.rgb_to_hsv(*color)[0]


@given(st.floats(0, 2 * np.pi))
@settings(max_examples=50, deadline=None)
def test_opposite_directions_have_opposite_hues(angle: float) -> None:
    y, x = np.sin(angle), np.cos(angle)
    assert (hue((y, x)) - hue((-y, -x))) % 1 == pytest.approx(0.5, abs=0.01)
    assert (hue((y, x)) - hue((0.5 * y, 0.5 * x)) + 0.5) % 1 == pytest.approx(0.5, abs=0.02)


def test_no_displacement_is_neutral_and_length_saturates_at_the_limit() -> None:
    still = overlays.displacement_map(np.zeros((2, 3, 4), np.float16), 5)
    np.testing.assert_array_equal(still, np.full((3, 4, 3), 255, np.uint8))
    line = np.zeros((2, 1, 4), np.float32)
    line[1] = [0, 2, 4, 8]
    drawn = overlays.displacement_map(line, 4)
    assert hue((0, 1)) == pytest.approx(0, abs=0.01)
    spread = np.ptp(drawn[0], axis=1).astype(int)
    assert spread[0] < spread[1] < spread[2] == spread[3]


def test_nearest_resizing_is_exact_for_whole_factors(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(overlays.resized_ids(labels, labels.shape), labels)
    tripled = overlays.resized_ids(labels, (90, 135))
    np.testing.assert_array_equal(tripled, np.kron(labels, np.ones((3, 3), np.uint8)))
    np.testing.assert_array_equal(overlays.resized_ids(tripled, labels.shape), labels)
