"""COCO's outlines against the reference coder and hand-made cases."""

import numpy as np
import pytest
from faster_coco_eval.core import mask as coder
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers.coco import Outline, Painting, decode_counts, rasterize
from tests.support.sources import mask

SIZE = (12, 16)
LABELS = {"cat": 1, "dog": 2}


def box(top: int, left: int, bottom: int, right: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs_of(array: np.ndarray) -> list[int]:
    """Uncompressed counts of a bool mask."""
    flat = np.concatenate([[False], array.ravel(order="F")])
    edges = np.flatnonzero(np.diff(flat)) + 1
    return np.diff(np.concatenate([[1], edges, [flat.size]])).tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_compressed_and_plain_run_lengths_give_the_mask_back(
    seed: int, height: int, width: int, share: float
) -> None:
    array = np.random.default_rng(seed).random((height, width)) < share
    packed = coder.encode(np.asfortranarray(array.astype(np.uint8)))["counts"]
    text = packed.decode() if isinstance(packed, bytes) else packed
    for counts in (text, runs_of(array)):
        result = rasterize({"size": [height, width], "counts": counts}, (height, width))
        assert result.dtype == bool
        np.testing.assert_array_equal(result, array)


def test_long_runs_need_several_letters() -> None:
    array = np.zeros((300, 500), bool)
    array[100:180, 20:450] = True
    packed = coder.encode(np.asfortranarray(array.astype(np.uint8)))["counts"]
    assert decode_counts(packed.decode() if isinstance(packed, bytes) else packed) == runs_of(array)


def test_polygons_are_united() -> None:
    result = rasterize(box(2, 3, 6, 9) + box(4, 7, 10, 12), SIZE)
    np.testing.assert_array_equal(result, mask((2, 3, 6, 9, 1), (4, 7, 10, 12, 1)) > 0)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "neither polygons nor run lengths"),
        ("text", "neither polygons nor run lengths"),
        ([[1, 2, 3, 4]], "at least three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "at least three points"),
        ([["a", 2, 3, 4, 5, 6]], "something else than numbers"),
        ([[[1, 2], [3, 4], [5, 6]]], "flat list"),
        ([[1, 2, 3, 4, float("nan"), 6]], "far outside"),
        ([[0, 0, 1e12, 0, 1e12, 9]], "far outside"),
        (
            {"size": [16, 12], "counts": [192]},
            r"run lengths of size \[16, 12\] on an image of \[12, 16\]",
        ),
        ({"size": [12, 16], "counts": [191]}, "add up to 191, not to 192"),
        ({"size": [12, 16], "counts": [200, -8]}, "no list of numbers from 0"),
        ({"size": [12, 16], "counts": 5}, "no list of numbers from 0"),
        ({"size": [12, 16], "counts": "P"}, "ends in mid-number"),
        ({"size": [12, 16], "counts": "é"}, "damaged"),
        ({"size": [12, 16], "counts": "o" * 99}, "damaged"),
    ],
)
def test_bad_outlines_say_what_is_wrong(segmentation: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rasterize(segmentation, SIZE)


def test_the_smaller_object_lies_on_top_in_any_order() -> None:
    large, small = Outline("cat", box(0, 0, 10, 14), False), Outline("dog", box(2, 2, 6, 6), False)
    expected = mask((0, 0, 10, 14, 1), (2, 2, 6, 6, 2))
    for outlines in ((large, small), (small, large)):
        semantic, instances = Painting(SIZE, outlines)(LABELS, SIZE)
        np.testing.assert_array_equal(semantic, expected)
        np.testing.assert_array_equal(instances, expected)


def test_a_crowd_is_void_below_the_objects_and_no_instance() -> None:
    crowd = Outline("dog", {"size": list(SIZE), "counts": runs_of(mask((0, 0, 4, 4, 1)) > 0)}, True)
    semantic, instances = Painting(SIZE, (Outline("cat", box(2, 0, 12, 16), False), crowd))(
        LABELS, SIZE
    )
    np.testing.assert_array_equal(semantic, mask((0, 0, 4, 4, 255), (2, 0, 12, 16, 1)))
    np.testing.assert_array_equal(instances, mask((2, 0, 12, 16, 1)))


def test_a_class_not_in_use_is_background_also_where_it_covers_others() -> None:
    outlines = (Outline("cat", box(0, 0, 10, 14), False), Outline("dog", box(2, 2, 6, 6), False))
    semantic, instances = Painting(SIZE, outlines)({"cat": 1}, SIZE)
    np.testing.assert_array_equal(semantic, mask((0, 0, 10, 14, 1), (2, 2, 6, 6, 0)))
    np.testing.assert_array_equal(instances > 0, semantic > 0)


def test_outlines_of_another_size_are_an_error() -> None:
    with pytest.raises(
        ValueError, match="for an image of 16 x 12 pixels, but the file has 12 x 16"
    ):
        Painting(SIZE, ())(LABELS, (16, 12))
