"""The half disc, the lines, and maxima over them against the definition."""

import pytest
import torch

from pipeline.irnet.paths import directions, line_cells, line_maxima


@pytest.mark.parametrize(
    ("radius", "number", "cells", "longest"), [(5, 34, 242, 11), (10, 152, 2134, 22)]
)
def test_disc_and_lines_have_published_sizes(
    radius: int, number: int, cells: int, longest: int
) -> None:
    lengths = [len(line_cells(*direction)) for direction in directions(radius)]
    assert (len(lengths), sum(lengths), min(lengths), max(lengths)) == (number, cells, 2, longest)


@pytest.mark.parametrize("radius", [2, 3, 5, 10])
def test_half_disc_and_its_flip_image_fill_the_disc_once(radius: int) -> None:
    half = set(directions(radius))
    flipped = {(-dy, -dx) for dy, dx in half}
    reach = range(1 - radius, radius)
    disc = {(y, x) for y in reach for x in reach if 0 < y * y + x * x < radius * radius}
    assert not half & flipped
    assert half | flipped == disc


def test_lines_hand_drawn() -> None:
    assert line_cells(0, 3) == ((0, 0), (0, 1), (0, 2), (0, 3))
    assert line_cells(1, 1) == ((0, 0), (0, 1), (1, 0), (1, 1))
    assert line_cells(1, -2) == ((0, -2), (0, -1), (0, 0), (1, -2), (1, -1), (1, 0))
    assert line_cells(2, 2) == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2))
    assert line_cells(3, 0) == ((0, 0), (1, 0), (2, 0), (3, 0))


@pytest.mark.parametrize("radius", [2, 4, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32])
def test_line_maxima_match_the_definition(radius: int, dtype: torch.dtype) -> None:
    height, width, reach = 9, 15, radius - 1
    values = torch.randperm(height * width, generator=torch.Generator().manual_seed(radius)).to(
        dtype
    )
    grid = values.view(height, width)
    seen = []
    for (dy, dx), maxima in line_maxima(values, width, radius):
        seen.append((dy, dx))
        for y in range(height - reach):
            for x in range(reach, width - reach):
                expected = max(grid[y + v, x + u] for v, u in line_cells(dy, dx))
                assert maxima[y * width + x - reach] == expected
    assert tuple(seen) == directions(radius)


def test_nan_spreads_to_every_line_through_it() -> None:
    values = torch.zeros(6 * 9)
    values[2 * 9 + 4] = torch.nan
    for (dy, dx), maxima in line_maxima(values, 9, 3):
        for y, x in line_cells(dy, dx):
            assert maxima[(2 - y) * 9 + 4 - x - 2].isnan()
