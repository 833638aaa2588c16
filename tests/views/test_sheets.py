import numpy as np
import pytest

from pipeline.views import overlays, sheets

CLASSES = ("cat", "dog")


def test_missing_panels_are_gray_and_the_others_stay_in_their_column() -> None:
    red, blue = (
        np.full((20, 30, 3), (255, 0, 0), np.uint8),
        np.full((20, 30, 3), (0, 0, 255), np.uint8),
    )
    drawn = sheets.contact_sheet(
        {"a": {"ground truth": blue, "image": red}, "b": {"ground truth": blue}}
    )
    is_red, is_blue = (drawn == (255, 0, 0)).all(2), (drawn == (0, 0, 255)).all(2)
    assert (is_red.sum(), is_blue.sum()) == (600, 1200)
    assert np.flatnonzero(is_red.any(0)).max() < np.flatnonzero(is_blue.any(0)).min()
    assert ((drawn == sheets.MISSING).all(2)).sum() == 600


def test_panels_of_any_size_are_centered() -> None:
    wide, tall = np.zeros((10, 40, 3), np.uint8), np.zeros((30, 10, 3), np.uint8)
    drawn = sheets.sheet([[wide, tall], [tall]], ["", ""])
    assert drawn.shape[1] == 40 + 10 + 3 * sheets.GAP
    assert (drawn == 0).all(2).sum() == 400 + 300 + 300


def test_captions_hold_colors_and_cut_what_does_not_fit() -> None:
    bar = sheets.caption_bar("image", 200, [("cat", (255, 0, 0))])
    assert bar.shape == (sheets.BAR, 200, 3)
    assert (bar == (255, 0, 0)).all(2).sum() > 40
    long = sheets.caption_bar("a name that is much too long for this bar", 80)
    assert long.shape == (sheets.BAR, 80, 3)
    assert (long[:, -2:] == sheets.PAGE).all()
    assert (long != sheets.PAGE).any()


def test_legend_names_the_classes_that_are_there() -> None:
    one = sheets.legend(
        [np.array([[0, 2, 255]], np.uint8), np.array([[1]], np.uint8)], ("cat", "dog", "cow")
    )
    assert [name for name, _ in one] == ["cat", "dog"]
    assert one[1] == sheets.legend([np.array([[2]], np.uint8)], ("cat", "dog", "cow"))[0]


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
    assert drawn.shape[1] == sheets.SIDE
    touched = np.asarray(drawn[:500].any(2))
    assert touched[100:300, 640:].all()
    assert not touched[:99].any()
    assert not touched[:, :639].any()


def test_legend_takes_as_many_bars_as_it_needs() -> None:
    keys = [(f"class {number}", (200, 10, 10)) for number in range(9)]
    assert len(sheets.key_bars(keys, 2000)) == sheets.BAR
    narrow = sheets.key_bars(keys, 120)
    assert narrow.shape == (9 * sheets.BAR, 120, 3)
    assert len(sheets.key_bars([], 120)) == 0
