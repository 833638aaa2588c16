"""The half disc, the lines, and maxima over them against the definition."""

import pytest
import torch

from pipeline.irnet.paths import directions, line_cells, line_maxima


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
