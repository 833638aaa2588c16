"""Parting of joined objects along boundaries: what is parted, what grows back, and what stays as it
was.
"""

import numpy as np
import pytest

from pipeline.irnet.instances import Instances, split_at_boundaries


def joined() -> tuple[Instances, np.ndarray]:
    """Two objects that touch: the first with a strong boundary at column 10 and a weak one at 20,
    the second with none.
    """
    ids, boundary = np.zeros((40, 50), np.uint16), np.full((40, 50), 0.05, np.float32)
    ids[5:20, 2:30], ids[20:35, 2:30] = 1, 2
    boundary[:20, 10], boundary[:20, 20] = 0.9, 0.4
    return Instances(ids, np.array([3, 7], np.uint8), np.array([0.8, 0.6], np.float32)), boundary


@pytest.mark.parametrize(
    ("strength", "classes"), [(0.95, [3, 7]), (0.6, [3, 3, 7]), (0.2, [3, 3, 3, 7]), (0.01, [3, 7])]
)
def test_objects_are_parted_at_boundaries_of_the_strength(
    strength: float, classes: list[int]
) -> None:
    found, boundary = joined()
    parts = split_at_boundaries(found, boundary, strength, 0.01)
    assert parts.classes.tolist() == classes
    assert parts.scores.tolist() == pytest.approx([{3: 0.8, 7: 0.6}[c] for c in classes])
    assert (parts.instances.dtype, parts.classes.dtype, parts.scores.dtype) == ("u2", "u1", "f4")
    for number, label in enumerate(parts.classes, start=1):
        inside = parts.instances == number
        assert inside.any()
        assert (found.classes[found.instances[inside] - 1] == label).all()
    assert ((parts.instances > 0) == (found.instances > 0)).all()


def test_ids_follow_the_first_pixel_in_reading_order() -> None:
    found, boundary = joined()
    ids = split_at_boundaries(found, boundary, 0.2, 0.01).instances
    assert list(dict.fromkeys(ids[ids > 0].tolist())) == [1, 2, 3, 4]


def test_pieces_that_are_too_small_stay_with_their_object() -> None:
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


def test_nothing_is_found_where_nothing_was() -> None:
    nothing = Instances(np.zeros((8, 8), np.uint16), np.empty(0, np.uint8), np.empty(0, np.float32))
    parts = split_at_boundaries(
        nothing, np.random.default_rng(0).random((8, 8)).astype("f4"), 0.5, 0.01
    )
    assert not parts.instances.any()
    assert len(parts.classes) == len(parts.scores) == 0
