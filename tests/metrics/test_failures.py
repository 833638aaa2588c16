"""Failure kinds on drawn masks: each kind alone, and none where all is well."""

import numpy as np
import pytest

from pipeline.metrics import failures
from pipeline.metrics.failures import KINDS, Failure, ImageFailures, find_failures, totals

H, W = 100, 200
LEFT, RIGHT = (slice(20, 60), slice(20, 60)), (slice(20, 60), slice(60, 100))
FAR = slice(20, 60), slice(140, 180)


def drawn(*boxes: tuple[tuple[slice, slice], int], dtype: type = np.uint8) -> np.ndarray:
    """Values in boxes on zeros, the later in front."""
    values: np.ndarray = np.zeros((H, W), dtype)
    for box, value in boxes:
        values[box] = value
    return values


def kinds(found: ImageFailures) -> list[str]:
    return [failure.kind for failure in found.failures]


def instances(*objects: tuple[tuple[slice, slice], int]) -> tuple[np.ndarray, np.ndarray]:
    """Ids in order, and the 0-based classes given."""
    ids = drawn(*((box, number) for number, (box, _) in enumerate(objects, 1)), dtype=np.uint16)
    return ids, np.array([c for _, c in objects], np.uint8)


TRUTH = drawn((LEFT, 1), (FAR, 2))
TRUE = instances((LEFT, 0), (FAR, 1))


def test_truth_has_no_failures() -> None:
    found = find_failures(TRUTH, TRUTH, TRUE, TRUE)
    assert found.failures == []
    assert found.counts() == dict.fromkeys(KINDS, 0)
    assert set(found.out_of.values()) == {2}
    assert find_failures(TRUTH, TRUTH).counts() == {
        **dict.fromkeys(KINDS, 0),
        "merged": None,
        "split": None,
    }


def test_empty_image_has_none_either() -> None:
    nothing = drawn()
    empty = instances()
    assert find_failures(nothing, nothing, empty, empty).counts() == dict.fromkeys(KINDS, 0)


def test_object_that_is_barely_covered_is_missed() -> None:
    found = find_failures(TRUTH, drawn((LEFT, 1), ((slice(20, 29), slice(140, 180)), 2)))
    assert found.failures == [Failure("missed", 1, 1600, (20, 140, 60, 180))]
    assert (
        find_failures(TRUTH, drawn((LEFT, 1), ((slice(20, 30), slice(140, 180)), 2))).failures == []
    )


def test_object_under_another_label_is_of_the_wrong_class() -> None:
    found = find_failures(TRUTH, drawn((LEFT, 1), (FAR, 1)))
    assert found.failures == [Failure("wrong_class", 1, 1600, (20, 140, 60, 180))]


def test_without_instance_masks_a_class_is_one_object() -> None:
    truth = drawn((LEFT, 1), (FAR, 1))
    half = drawn((LEFT, 1))
    assert kinds(find_failures(truth, half)) == []
    assert kinds(find_failures(truth, half, instances((LEFT, 0), (FAR, 0)))) == ["missed"]


@pytest.mark.parametrize("right", [75, 71])
def test_foreground_beyond_an_object_is_bleeding_from_a_fifth_on(right: int) -> None:
    wide = slice(20, 60), slice(20, right)
    found = find_failures(TRUTH, drawn((wide, 1), (FAR, 2)))
    spilled = 40 * (right - 60)
    expected = [Failure("bleeding", 0, spilled, (20, 60, 60, right))]
    assert found.failures == (expected if spilled >= 0.2 * 40 * (right - 20) else [])


def test_foreground_beside_an_object_is_bleeding_too() -> None:
    found = find_failures(TRUTH, drawn((RIGHT, 1), (FAR, 2)))
    assert kinds(found) == ["missed", "bleeding"]


def test_foreground_where_nothing_is_takes_background() -> None:
    apart = slice(70, 95), slice(90, 130)
    found = find_failures(TRUTH, drawn((LEFT, 1), (FAR, 2), (apart, 1)))
    assert found.failures == [Failure("background_taken", 0, 1000, (70, 90, 95, 130))]
    crumb = slice(70, 79), slice(90, 101)
    assert find_failures(TRUTH, drawn((LEFT, 1), (FAR, 2), (crumb, 1))).failures == [], (
        "99 of 20,000 pixels"
    )


def test_wrong_class_with_a_rim_is_not_taken_background() -> None:
    rim = slice(18, 62), slice(138, 182)
    assert kinds(find_failures(TRUTH, drawn((LEFT, 1), (rim, 1)))) == ["wrong_class"]


def test_one_instance_over_two_true_ones_merges_them() -> None:
    true = instances((LEFT, 0), (RIGHT, 0))
    both = slice(20, 60), slice(20, 100)
    truth = drawn((both, 1))
    found = find_failures(truth, truth, true, instances((both, 0)))
    assert found.failures == [Failure("merged", 0, 3200, (20, 20, 60, 100))]
    assert found.out_of["merged"] == 1
    less = slice(20, 60), slice(20, 79)
    assert find_failures(truth, truth, true, instances((less, 0))).failures == [], (
        "under a half of the second"
    )
    other = instances((LEFT, 0), (RIGHT, 1))
    assert find_failures(truth, truth, other, instances((both, 0))).counts()["merged"] == 0, (
        "of another class"
    )


def test_one_true_instance_in_two_pieces_is_split() -> None:
    both = slice(20, 60), slice(20, 100)
    truth = drawn((both, 1))
    found = find_failures(truth, truth, instances((both, 0)), instances((LEFT, 0), (RIGHT, 0)))
    assert found.failures == [Failure("split", 0, 3200, (20, 20, 60, 100))]
    crumb = slice(20, 60), slice(90, 100)
    whole = slice(20, 60), slice(20, 90)
    assert (
        find_failures(
            truth, truth, instances((both, 0)), instances((whole, 0), (crumb, 0))
        ).failures
        == []
    )


def test_void_pixels_count_nowhere() -> None:
    truth = drawn((LEFT, 1), (RIGHT, 255))
    wide = slice(20, 60), slice(20, 100)
    assert (
        find_failures(
            truth, drawn((wide, 1)), instances((LEFT, 0)), instances((LEFT, 0), (RIGHT, 0))
        ).failures
        == []
    )
    ignored = find_failures(TRUTH, drawn((LEFT, 255), (FAR, 2)))
    assert kinds(ignored) == ["missed"], "ignored is no foreground"


def test_totals_add_up_over_images() -> None:
    clean = find_failures(TRUTH, TRUTH, TRUE, TRUE)
    bare = find_failures(TRUTH, drawn((LEFT, 1)))
    two = find_failures(TRUTH, drawn())
    whole = totals({"a": clean, "b": bare, "c": two})
    assert whole["missed"] == {"count": 3, "images": 2, "out_of": 6}
    assert whole["split"] == {"count": 0, "images": 0, "out_of": 2}
    assert list(whole) == list(KINDS)
    assert totals({"b": bare}).keys() == set(KINDS) - {"merged", "split"}
    assert totals({}) == {}


def test_unequal_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        find_failures(TRUTH, TRUTH[:, 1:])


def test_every_kind_is_explained() -> None:
    assert all(f"\n    {kind} " in (failures.__doc__ or "") for kind in KINDS)
