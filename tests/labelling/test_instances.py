"""Instances of walked maps: who wins a pixel, what is dropped, and what is split at boundaries."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.labelling.pseudo_labels import InstanceMap, extract_instances, split_at_boundaries


@pytest.mark.defect("irn-22")
@pytest.mark.parametrize("seed", range(4))
def test_instances_match_a_loop_over_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = np.kron(rng.random((4, 6, 7)), np.ones((1, 3, 3))).astype(np.float32)
    classes = [7, 3, 3, 0]
    found = extract_instances(maps, np.array(classes), 0.6, 0.03)
    winner = np.concatenate([np.full((1, *maps.shape[1:]), 0.6, np.float32), maps]).argmax(0)
    expected = [
        (piece, classes[m], maps[m][piece].mean())
        for m in range(4)
        for parts, count in [ndimage.label(winner == m + 1)]
        for piece in (parts == number + 1 for number in range(count))
        if piece.sum() >= 0.03 * winner.size
    ]
    expected.sort(key=lambda item: item[0].argmax())
    assert len(expected) > 3
    assert found.instances.dtype == np.uint16
    assert found.classes.dtype == np.uint8
    assert found.scores.dtype == np.float32
    assert found.classes.tolist() == [cls for _, cls, _ in expected]
    np.testing.assert_allclose(found.scores, [score for *_, score in expected], rtol=1e-6)
    canvas = np.zeros_like(found.instances)
    for number, (piece, *_) in enumerate(expected, start=1):
        canvas[piece] = number
    assert (found.instances == canvas).all()


def test_background_wins_at_its_score_and_the_first_of_equal_maps_wins() -> None:
    maps = np.full((2, 4, 4), 0.25, np.float32)
    assert not extract_instances(maps, np.array([5, 6]), 0.25, 0).instances.any()
    assert extract_instances(maps, np.array([5, 6]), 0.2, 0).classes.tolist() == [5]


def test_more_instances_than_ids_are_refused() -> None:
    maps = np.zeros((1, 514, 514), np.float32)
    maps[0, ::2, ::2] = 1
    with pytest.raises(ValueError, match="66049 instances do not fit in uint16: raise min_area"):
        extract_instances(maps, np.array([0]), 0.25, 0)


def joined() -> tuple[InstanceMap, np.ndarray]:
    """Two objects that touch: the first with a strong boundary at column 10 and a weak one at 20,
    the second with none.
    """
    ids, boundary = np.zeros((40, 50), np.uint16), np.full((40, 50), 0.05, np.float32)
    ids[5:20, 2:30], ids[20:35, 2:30] = 1, 2
    boundary[:20, 10], boundary[:20, 20] = 0.9, 0.4
    return InstanceMap(ids, np.array([3, 7], np.uint8), np.array([0.8, 0.6], np.float32)), boundary


@pytest.mark.parametrize(
    ("threshold", "classes"),
    [(0.95, [3, 7]), (0.6, [3, 3, 7]), (0.2, [3, 3, 3, 7]), (0.01, [3, 7])],
)
def test_instances_are_split_at_boundaries_of_the_threshold(
    threshold: float, classes: list[int]
) -> None:
    found, boundary = joined()
    parts = split_at_boundaries(found, boundary, threshold, 0.01)
    assert parts.classes.tolist() == classes
    assert parts.scores.tolist() == pytest.approx([{3: 0.8, 7: 0.6}[c] for c in classes])
    assert (parts.instances.dtype, parts.classes.dtype, parts.scores.dtype) == ("u2", "u1", "f4")
    for number, label in enumerate(parts.classes, start=1):
        inside = parts.instances == number
        assert inside.any()
        assert (found.classes[found.instances[inside] - 1] == label).all()
    assert ((parts.instances > 0) == (found.instances > 0)).all()


def test_pieces_that_are_too_small_stay_with_their_whole() -> None:
    found, boundary = joined()
    assert split_at_boundaries(found, boundary, 0.6, 0.07).classes.tolist() == [
        3,
        7,
    ]  # 15 x 8 of 40 x 50 pixels are 0.06
    assert split_at_boundaries(found, boundary, 0.6, 0.05).classes.tolist() == [3, 3, 7]


def test_parts_meet_where_the_boundary_is_strongest() -> None:
    found, boundary = joined()
    boundary[:20, 9], boundary[:20, 11] = 0.7, 0.7
    ids = split_at_boundaries(found, boundary, 0.6, 0.01).instances
    assert (ids[5:20, 2:10] == 1).all()
    assert (ids[5:20, 11:30] == 2).all()
