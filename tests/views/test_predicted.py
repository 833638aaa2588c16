"""Overlays of results: what is drawn sits where it was found, and has its name below."""

import numpy as np
import pytest

from pipeline.views import overlays, sheets

CLASSES = ("cat", "dog")


@pytest.fixture
def image() -> np.ndarray:
    return np.full((40, 200, 3), (90, 117, 71), np.uint8)


def masks() -> np.ndarray:
    """Three masks, the second wholly behind the first."""
    masks = np.zeros((3, 40, 200), bool)
    masks[0, 5:30, 10:60] = masks[1, 8:20, 20:40] = masks[2, 10:30, 120:180] = True
    return masks


def test_labels_are_drawn_where_they_are_with_a_key_below(image: np.ndarray) -> None:
    labels = np.zeros((40, 200), np.uint8)
    labels[5:20, 30:90] = 2
    drawn = sheets.labeled(image, labels, CLASSES)
    np.testing.assert_array_equal((drawn[:40] != image).any(2), labels > 0)
    assert drawn.shape == (40 + sheets.BAR, 200, 3)
    assert (drawn[40:] == overlays.palette(2)[1]).all(2).any(), "the color of class dog"
    assert not (drawn[40:] == overlays.palette(1)[0]).all(2).any(), "cat is not there"


def test_nothing_found_is_the_image_alone(image: np.ndarray) -> None:
    np.testing.assert_array_equal(
        sheets.labeled(image, np.zeros((40, 200), np.uint8), CLASSES), image
    )
    none = np.zeros((0, 40, 200), bool), np.zeros(0, np.uint8), np.zeros(0, np.float32)
    np.testing.assert_array_equal(sheets.found(image, *none, CLASSES), image)


def test_instances_are_drawn_where_they_are_the_surest_in_front(image: np.ndarray) -> None:
    drawn = sheets.found(image, masks(), np.array([0, 1, 1]), np.array([0.9, 0.5, 0.4]), CLASSES)
    np.testing.assert_array_equal((drawn[:40] != image).any(2), masks().any(0))
    colors = overlays.instance_palette(3)
    below = [(drawn[40:] == color).all(2).any() for color in colors]
    assert below == [True, False, True], "what nobody sees has no key"


def test_large_images_are_drawn_smaller_and_masks_with_them() -> None:
    image, labels = np.zeros((1000, 2560, 3), np.uint8), np.zeros((1000, 2560), np.uint8)
    labels[200:600, 1280:] = 1
    drawn = sheets.labeled(image, labels, CLASSES)
    assert drawn.shape[1] == overlays.SIDE
    touched = drawn[:500].any(2)
    assert touched[100:300, 640:].all()
    assert not touched[:99].any()
    assert not touched[:, :639].any()


def test_a_key_takes_as_many_bars_as_it_needs() -> None:
    keys = [(f"class {number}", (200, 10, 10)) for number in range(9)]
    assert len(sheets.key_bars(keys, 2000)) == sheets.BAR
    narrow = sheets.key_bars(keys, 120)
    assert narrow.shape == (9 * sheets.BAR, 120, 3)
    assert len(sheets.key_bars([], 120)) == 0


def test_jpeg_is_the_image_but_for_rounding(image: np.ndarray) -> None:
    from io import BytesIO

    from PIL import Image

    image[:, 100:] = (200, 30, 60)
    with Image.open(BytesIO(sheets.jpeg(image))) as back:
        assert back.format == "JPEG"
        assert np.abs(np.asarray(back)[:, [10, 190]].astype(int) - image[:, [10, 190]]).max() < 8
