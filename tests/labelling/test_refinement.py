"""Instances that prompt a segmenter: where they point, and what becomes of its answers."""

import numpy as np
import pytest

from pipeline.core.artifacts import IGNORE, Record
from pipeline.labelling.refinement import POINTS, deepest_points, queries, refined

SEGMENTS: Record = {"segments": np.zeros((12, 16), np.uint16)}


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((12, 16), bool)
    mask[top:bottom, left:right] = True
    return mask


def record(*instances: tuple[np.ndarray, int, float]) -> Record:
    """Labels of instances (mask, class, score), the last in front."""
    ids, semantic = np.zeros((12, 16), np.uint16), np.zeros((12, 16), np.uint8)
    for number, (mask, c, _) in enumerate(instances, start=1):
        ids[mask], semantic[mask] = number, c + 1
    classes, scores = ([row[k] for row in instances] for k in (1, 2))
    return {
        "semantic": semantic,
        "instances": ids,
        "classes": np.array(classes, np.uint8),
        "scores": np.array(scores, np.float32),
    }


def test_deepest_points_are_far_from_edges_and_from_each_other() -> None:
    assert deepest_points(rectangle(0, 0, 5, 5), 1).tolist() == [[2.5, 2.5]]
    first, second = deepest_points(rectangle(2, 1, 7, 16), 2)
    assert (first[1], second[1]) == (4.5, 4.5)
    assert abs(first[0] - second[0]) >= 3
    assert sorted(deepest_points(rectangle(3, 4, 4, 6), 9).tolist()) == [[4.5, 3.5], [5.5, 3.5]]
    assert deepest_points(rectangle(0, 0, 0, 0), 3).shape == (0, 2)


def test_instances_prompt_with_their_box_and_points_on_either_side() -> None:
    own, other = rectangle(2, 2, 8, 8) & ~rectangle(2, 6, 4, 8), rectangle(6, 6, 8, 8)
    labels = record((own, 0, 1), (other, 1, 1))
    first, second = queries(labels, SEGMENTS)
    assert (first.box_xyxy, second.box_xyxy) == ((2, 2, 8, 8), (6, 6, 8, 8))
    y, x = np.floor(first.points_xy).astype(int).T[::-1]
    assert (labels["instances"][y, x] == 1).all()
    y, x = np.floor(first.outside_xy).astype(int).T[::-1]
    assert set(labels["instances"][y, x]) == {0, 2}
    assert (len(first.points_xy), len(first.outside_xy)) == (POINTS, POINTS)
    assert len(second.outside_xy) == 0, "it fills its box"


def test_what_a_person_said_prompts_too() -> None:
    labels = record((rectangle(2, 2, 8, 10), 0, 1))
    said = np.full((12, 16), IGNORE, np.uint8)
    said[3, 3], said[7, 9], said[10, 12] = 1, 0, 2
    (query,) = queries(labels, SEGMENTS, said)
    assert query.points_xy[POINTS:].tolist() == [[3.5, 3.5]]
    assert query.outside_xy.tolist() == [[9.5, 7.5]], "what is outside of the box is no news"


def test_only_an_answer_that_agrees_replaces_a_mask() -> None:
    mask, answer = rectangle(2, 2, 6, 6), rectangle(2, 2, 6, 7)  # IoU 0.8
    labels = record((mask, 3, 0.5))
    assert refined(labels, [answer], 0.81)["instances"].tolist() == mask.astype(int).tolist()
    found = refined(labels, [answer], 0.8)
    assert found["instances"].tolist() == answer.astype(int).tolist()
    assert found["semantic"].tolist() == (4 * answer).tolist()
    lost = refined(labels, [rectangle(2, 2, 6, 5)], 0.7)
    assert lost["semantic"][3, 5] == lost["instances"][3, 5] == 0


def test_pixels_stay_with_their_instance_or_go_to_the_highest_score() -> None:
    low, high = rectangle(2, 1, 8, 7), rectangle(2, 9, 8, 15)
    labels = record((low, 0, 0.5), (high, 1, 0.9))
    found = refined(labels, [rectangle(2, 1, 8, 10), rectangle(2, 8, 8, 15)], 0.5)
    assert found["instances"][4].tolist() == [0] + [1] * 7 + [2] * 7 + [0]
    assert found["semantic"].tolist() == found["instances"].tolist()


@pytest.mark.parametrize("agreement", [0.0, 0.5, 1.0])
def test_labels_that_the_segmenter_confirms_keep_their_bytes(agreement: float) -> None:
    labels = record((rectangle(0, 0, 12, 9), 0, 0.5), (rectangle(3, 5, 9, 14), 2, 0.4))
    labels["semantic"][11, 15] = 2  # of no instance
    found = refined(labels, [labels["instances"] == n for n in (1, 2)], agreement)
    for key, values in labels.items():
        assert np.array_equal(found[key], values)
