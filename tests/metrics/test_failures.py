"""Failure kinds on drawn masks: each kind alone, and none where all is well."""

from typing import Any

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


WIDE = slice(20, 60), slice(20, 100)


def box(top: int, bottom: int, left: int, right: int) -> tuple[slice, slice]:
    return slice(top, bottom), slice(left, right)


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        (TRUTH, TRUTH, []),
        (drawn(), drawn(), []),
        # an object of which less than a quarter is covered
        (TRUTH, drawn((LEFT, 1), (box(20, 29, 140, 180), 2)), [("missed", 1, 1600, FAR)]),
        (TRUTH, drawn((LEFT, 1), (box(20, 30, 140, 180), 2)), []),
        (TRUTH, drawn((LEFT, 255), (FAR, 2)), [("missed", 0, 1600, LEFT)]),
        (TRUTH, drawn((LEFT, 1), (FAR, 1)), [("wrong_class", 1, 1600, FAR)]),
        # a rim around a wrong class is not taken background
        (TRUTH, drawn((LEFT, 1), (box(18, 62, 138, 182), 1)), [("wrong_class", 1, 1600, FAR)]),
        # foreground beyond an object, from a fifth of the region on, and next to it
        (
            TRUTH,
            drawn((box(20, 60, 20, 75), 1), (FAR, 2)),
            [("bleeding", 0, 600, box(20, 60, 60, 75))],
        ),
        (TRUTH, drawn((box(20, 60, 20, 69), 1), (FAR, 2)), []),
        (
            TRUTH,
            drawn((RIGHT, 1), (FAR, 2)),
            [("missed", 0, 1600, LEFT), ("bleeding", 0, 1600, RIGHT)],
        ),
        (
            TRUTH,
            drawn((LEFT, 1), (FAR, 2), (box(70, 95, 90, 130), 1)),
            [("background_taken", 0, 1000, box(70, 95, 90, 130))],
        ),
        # 99 of 20,000 pixels are too few
        (TRUTH, drawn((LEFT, 1), (FAR, 2), (box(70, 79, 90, 101), 1)), []),
        # void pixels count nowhere
        (drawn((LEFT, 1), (RIGHT, 255)), drawn((WIDE, 1)), []),
    ],
)
def test_failures_of_label_maps(
    truth: np.ndarray, prediction: np.ndarray, expected: list[tuple]
) -> None:
    found = find_failures(truth, prediction)
    assert found.failures == [
        Failure(kind, label, pixels, corners(place)) for kind, label, pixels, place in expected
    ]
    assert found.counts()["merged"] is found.counts()["split"] is None


def corners(place: tuple[slice, slice]) -> tuple[int, int, int, int]:
    down, across = place
    return down.start, across.start, down.stop, across.stop


@pytest.mark.parametrize(
    ("truth", "true", "found", "expected"),
    [
        (TRUTH, TRUE, TRUE, []),
        (drawn(), instances(), instances(), []),
        (drawn((WIDE, 1)), [(LEFT, 0), (RIGHT, 0)], [(WIDE, 0)], ["merged"]),
        # under a half of the second one; of another class
        (drawn((WIDE, 1)), [(LEFT, 0), (RIGHT, 0)], [(box(20, 60, 20, 79), 0)], []),
        (drawn((LEFT, 1), (RIGHT, 2)), [(LEFT, 0), (RIGHT, 1)], [(WIDE, 0)], []),
        (drawn((WIDE, 1)), [(WIDE, 0)], [(LEFT, 0), (RIGHT, 0)], ["split"]),
        (drawn((WIDE, 1)), [(WIDE, 0)], [(box(20, 60, 20, 90), 0), (box(20, 60, 90, 100), 0)], []),
        (drawn((LEFT, 1), (RIGHT, 255)), [(LEFT, 0)], [(LEFT, 0), (RIGHT, 0)], []),
    ],
)
def test_failures_of_instances(
    truth: np.ndarray, true: Any, found: Any, expected: list[str]
) -> None:
    both = [
        instances(*objects) if isinstance(objects, list) else objects for objects in (true, found)
    ]
    result = find_failures(truth, truth, *both)
    assert kinds(result) == expected
    assert all(one.pixels == 3200 and one.box == corners(WIDE) for one in result.failures)
    assert None not in result.counts().values()


def test_without_instance_masks_a_class_is_one_object() -> None:
    truth = drawn((LEFT, 1), (FAR, 1))
    half = drawn((LEFT, 1))
    assert kinds(find_failures(truth, half)) == []
    assert kinds(find_failures(truth, half, instances((LEFT, 0), (FAR, 0)))) == ["missed"]
    assert find_failures(TRUTH, TRUTH, TRUE, TRUE).out_of == dict.fromkeys(KINDS, 2)


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
