"""Which images are computed together."""

import pytest
import torch

from pipeline.irnet import walk as room
from pipeline.irnet.walk import groups


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([], []),
        ([(1, 50, 50)], [(0, 1)]),
        ([(1, 5, 4), (1, 4, 5), (1, 6, 10)], [(0, 3)]),
        ([(1, 5, 4), (1, 9, 9), (1, 1, 1)], [(0, 1), (1, 3)]),
        ([(1, 5, 4), (4, 5, 4), (1, 5, 4)], [(0, 1), (1, 2), (2, 3)]),
        ([(2, 5, 4), (2, 5, 4), (2, 5, 4)], [(0, 2), (2, 3)]),
        ([(0, 5, 4), (0, 5, 4), (0, 5, 12)], [(0, 3)]),
    ],
)
def test_ranges_take_what_fits_and_at_least_one(
    shapes: list[tuple[int, int, int]],
    expected: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "VALUES_AT_ONCE", {"cpu": 100})
    found = list(groups([torch.zeros(shape) for shape in shapes]))
    assert [(part.start, part.stop) for part in found] == expected
