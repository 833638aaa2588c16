import io

import numpy as np
import pytest
from PIL import Image

from pipeline.views import sheets

H, W = 50, 90
GRID = (13, 23)


def everything(side: int = 60) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    ids = np.zeros((H, W), np.uint16)
    ids[10:40, 20:70] = 1
    labels = ids.astype(np.uint8)
    return sheets.panels(
        generator.integers(0, 256, (H, W, 3)).astype(np.uint8),
        cams=generator.random((2, *GRID)).astype(np.float16),
        seeds=np.where(labels, labels, np.uint8(255)),
        boundary=generator.random(GRID).astype(np.float16),
        displacement=generator.normal(size=(2, *GRID)).astype(np.float16),
        pseudo_label=labels,
        instances=ids,
        prediction=labels,
        predicted_instances=ids,
        truth=labels,
        true_instances=ids,
        side=side,
    )


def test_panels_come_in_order_and_in_one_size() -> None:
    drawn = everything()
    assert tuple(drawn) == sheets.COLUMNS
    assert {panel.shape for panel in drawn.values()} == {(33, 60, 3)}
    assert {panel.dtype for panel in drawn.values()} == {np.dtype(np.uint8)}
    assert list(sheets.panels(np.zeros((H, W, 3), np.uint8))) == ["image"]


def test_no_maps_at_all_show_the_image() -> None:
    drawn = sheets.panels(np.full((H, W, 3), 90, np.uint8), cams=np.zeros((0, *GRID), np.float16))
    np.testing.assert_array_equal(drawn["CAM"], drawn["image"])


def test_missing_panels_are_gray_and_the_others_stay_in_their_column() -> None:
    red, blue = (
        np.full((20, 30, 3), (255, 0, 0), np.uint8),
        np.full((20, 30, 3), (0, 0, 255), np.uint8),
    )
    drawn = sheets.contact_sheet({"a": {"truth": blue, "image": red}, "b": {"truth": blue}})
    is_red, is_blue = (drawn == (255, 0, 0)).all(2), (drawn == (0, 0, 255)).all(2)
    assert (is_red.sum(), is_blue.sum()) == (600, 1200)
    assert np.flatnonzero(is_red.any(0)).max() < np.flatnonzero(is_blue.any(0)).min()
    assert ((drawn == sheets.MISSING).all(2)).sum() == 600
    with pytest.raises(ValueError, match="at least one"):
        sheets.contact_sheet({})


def test_panels_of_any_size_are_centerd() -> None:
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


def test_the_file_is_the_image_and_the_same_every_time() -> None:
    first = sheets.png(sheets.contact_sheet({"a": everything()}))
    assert first == sheets.png(sheets.contact_sheet({"a": everything()}))
    np.testing.assert_array_equal(
        np.array(Image.open(io.BytesIO(first))), sheets.contact_sheet({"a": everything()})
    )


def test_file_names_stay_in_their_folder_and_differ() -> None:
    names = [sheets.png_name(n) for n in ("a/b", "a%2Fb", "../c", "häuser 1")]
    assert len(set(names)) == 4
    assert all("/" not in n and n.endswith(".png") for n in names)
