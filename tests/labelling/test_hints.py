"""Hints in scores, seeds and pseudo-labels: what overrides, what competes, what forbids."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.artifacts import IGNORE, Record
from pipeline.labelling.hints import Hint, hint_of, is_corrected
from pipeline.labelling.pseudo_labels import pseudo_labels
from pipeline.labelling.seeds import seed_map
from pipeline.params import presets
from pipeline.params.pseudo_labels import Labels
from stages.semantic import _walked
from tests.labelling.test_seeds import OFF, ON

SIZE = (24, 32)
CAT, DOG = 3, 7
CLASSES = np.array([CAT, DOG], np.uint8)
RULES: dict[str, Any] = {
    "background": 0.25,
    "normalize": "image",
    "min_area": 0.0,
    "boundary_threshold": 1.0,
}


def record(**changes: Any) -> dict[str, np.ndarray]:
    """What is said of an image: nothing, but for the changes."""
    nothing: dict[str, np.ndarray] = {
        "pixels": np.full(SIZE, IGNORE, np.uint8),
        "instances": np.zeros(SIZE, np.uint16),
        "evidence": np.zeros((0, *SIZE), np.float16),
        "classes": np.zeros(0, np.uint8),
        "objects": np.zeros((0, 3), np.float32),
        "boxes": np.zeros((0, 7), np.float32),
        "gated": np.zeros(0, np.uint8),
    }
    return {**nothing, **changes}


def pixels(*said: tuple[slice, slice, int]) -> np.ndarray:
    labels = np.full(SIZE, IGNORE, np.uint8)
    for rows, columns, label in said:
        labels[rows, columns] = label
    return labels


def evidence(score: float, c: int = CAT) -> dict[str, np.ndarray]:
    """A model's mask of the left half."""
    maps = np.zeros((1, *SIZE), np.float16)
    maps[0, :, :16] = score
    return record(evidence=maps, classes=np.array([c], np.uint8))


def box(score: float, person: int, c: int = CAT) -> dict[str, np.ndarray]:
    """A box around the left half."""
    return record(boxes=np.array([[c, score, person, 0, 0, 16, 24]], np.float32))


LEFT, RIGHT, ALL = slice(0, 16), slice(16, 32), slice(None)
noise = np.random.default_rng(0).random((2, *SIZE), np.float32)


def test_nothing_said_changes_nothing() -> None:
    hint = Hint(record(), 1.0)
    np.testing.assert_array_equal(hint.applied(noise, CLASSES), noise)
    np.testing.assert_array_equal(hint.applied(noise[:, ::4, ::4], CLASSES, 4), noise[:, ::4, ::4])
    np.testing.assert_array_equal(hint.applied_to_instances(noise, CLASSES), noise)
    assert hint_of({}, "a", 1.0) is None


@pytest.mark.parametrize("trust", [0.0, 0.5, 1.0])
def test_scores_follow_the_formula(trust: float) -> None:
    said = evidence(0.75) | {"boxes": np.array([[DOG, 0.5, 0, 0, 0, 16, 24]], np.float32)}
    said["pixels"] = pixels((slice(0, 4), ALL, CAT + 1), (slice(4, 8), ALL, 0))
    found = Hint(said, trust).applied(noise, CLASSES)
    expected = noise.copy()
    expected[0, :, LEFT] = np.maximum(noise[0, :, LEFT], trust * 0.75)
    expected[1, :, RIGHT] *= 1 - trust * 0.5
    expected[:, :8] = 0
    expected[0, :4] = 1
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_on_a_grid_a_cell_takes_its_share() -> None:
    said = record(pixels=pixels((slice(0, 4), slice(0, 3), CAT + 1), (slice(0, 4), slice(3, 4), 0)))
    found = Hint(said, 1.0).applied(noise[:, ::4, ::4], CLASSES, 4)
    assert found[0, 0, 0] == 0.75
    assert found[1, 0, 0] == 0
    np.testing.assert_array_equal(found[:, 1:], noise[:, 4::4, ::4])


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_grid_may_reach_beyond_the_image(height: int, width: int) -> None:
    said = record(pixels=np.full((height, width), CAT + 1, np.uint8))
    said["evidence"] = np.zeros((0, height, width), np.float16)
    grid = np.zeros((2, -(-height // 4), -(-width // 4)), np.float32)
    found = Hint(said, 1.0).applied(grid, CLASSES, 4)
    assert (found[0] == 1).all()
    assert (found[1] == 0).all()


@pytest.mark.parametrize(("person", "trust", "left"), [(1, 0.0, 0), (0, 0.0, 1), (0, 1.0, 0.25)])
def test_a_box_of_a_person_forbids_and_that_of_a_model_as_far_as_it_is_trusted(
    person: int, trust: float, left: float
) -> None:
    found = Hint(box(0.75, person), trust).applied(noise, CLASSES)
    np.testing.assert_array_equal(found[0, :, LEFT], noise[0, :, LEFT])
    np.testing.assert_allclose(found[0, :, RIGHT], left * noise[0, :, RIGHT])
    np.testing.assert_array_equal(found[1], noise[1])


@pytest.mark.parametrize("crf", [OFF, ON])
def test_what_a_person_says_is_seed_whatever_the_maps_and_the_crf_say(crf: Any) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)
    labels = pixels((slice(0, 12), LEFT, CAT + 1), (slice(2, 3), RIGHT, 0), (ALL, slice(31, 32), 8))
    hint = Hint(record(pixels=labels), 0.0)
    maps = np.random.default_rng(2).random((2, 6, 8)).astype(np.float16)
    seeds = seed_map(image, maps, CLASSES, foreground=0.3, background=0.1, crf=crf, hint=hint)
    assert seeds.dtype == np.uint8
    np.testing.assert_array_equal(seeds[labels != IGNORE], labels[labels != IGNORE])


def test_evidence_becomes_seed_where_it_is_the_highest() -> None:
    image, maps = np.zeros((*SIZE, 3), np.uint8), np.zeros((2, 6, 8), np.float16)
    rules: dict[str, Any] = {"foreground": 0.3, "background": 0.1, "crf": OFF}
    maps[1, :, :2] = 0.9
    seeds = seed_map(image, maps, CLASSES, **rules, hint=Hint(evidence(0.5), 1.0))
    assert (seeds[:, :6] == DOG + 1).all()
    assert (seeds[:, 10:16] == CAT + 1).all()
    assert (seeds[:, 16:] == 0).all()


def walk(maps: np.ndarray, classes: list[int]) -> Record:
    return {
        "maps": maps.astype(np.float16),
        "background": np.zeros(maps.shape[1:], np.float16),
        "classes": np.array(classes, np.uint8),
        "size": np.array(SIZE),
    }


def labels(hint: Hint, maps: np.ndarray, classes: list[int]) -> Record:
    found = pseudo_labels(walk(maps, classes), np.zeros((6, 8)), **RULES, hint=hint)
    return hint.settled_record(found, RULES["background"])


def test_soft_targets_keep_what_a_person_said() -> None:
    said = pixels((ALL, LEFT, CAT + 1), (slice(0, 6), RIGHT, 0))
    hints = {"a": record(pixels=said)}
    walked: Any = {"a": walk(np.stack([np.full((6, 8), 0.3), np.full((6, 8), 0.9)]), [CAT, DOG])}
    rules = Labels(**{**presets.load("scenes")["labels"], "normalize": "image"})
    targets, keys = _walked(walked, hints, 1.0, rules, "a")  # type: ignore[arg-type]
    found = keys[targets.argmax(0)]
    np.testing.assert_array_equal(found[said != IGNORE], said[said != IGNORE])
    assert (found[6:, RIGHT] == DOG + 1).all()


def test_labels_and_instances_are_what_a_person_drew() -> None:
    said = pixels((ALL, LEFT, CAT + 1), (slice(0, 6), RIGHT, 0))
    drawn = np.zeros(SIZE, np.uint16)
    drawn[4:8, 4:8], drawn[4:8, 8:12] = 1, 2
    hint = Hint(record(pixels=said, instances=drawn, objects=np.array([[CAT, 1, 1]] * 2)), 0.0)
    maps = np.zeros((2, 6, 8))
    maps[0, :, :1], maps[1] = 0.3, 0.9
    found = labels(hint, maps, [CAT, DOG])
    np.testing.assert_array_equal(found["semantic"][said != IGNORE], said[said != IGNORE])
    ids, classes = found["instances"], found["classes"]
    assert (found["semantic"] == np.append(0, classes + 1)[ids]).all(), "all of it is instances"
    assert len(np.unique(ids[4:8, 4:8])) == len(np.unique(ids[4:8, 8:12])) == 1
    assert ids[4, 4] != ids[4, 8]
    assert found["scores"][ids[4, 4] - 1] == 1
    assert set(np.unique(ids)) == {*range(len(classes) + 1)}


@pytest.mark.parametrize(("trust", "separate"), [(1.0, True), (0.25, False)])
def test_objects_of_a_model_are_instances_where_the_labels_agree(
    trust: float, separate: bool
) -> None:
    drawn = np.zeros(SIZE, np.uint16)
    drawn[:, :8], drawn[:, 8:20] = 1, 2
    said = evidence(0.9) | {"instances": drawn, "objects": np.array([[CAT, 0.9, 0]] * 2)}
    maps = np.full((1, 6, 8), 0.5)
    maps[:, :, 4:] = 0
    found = labels(Hint(said, trust), maps, [CAT])
    assert (found["semantic"][:, :15] == CAT + 1).all()
    assert (found["instances"][0, 0] != found["instances"][0, 10]) == separate
    assert not found["instances"][:, 19].any()


def test_only_what_a_person_says_leaves_an_image_out_of_the_scores() -> None:
    assert not is_corrected(record())
    assert not is_corrected(evidence(1))
    assert not is_corrected(box(1, 0))
    assert is_corrected(box(1, 1))
    assert is_corrected(record(pixels=pixels((slice(0, 1), ALL, 0))))
