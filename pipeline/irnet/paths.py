"""Which pairs of cells IRNet relates, and the cells on the line between them (IRNet, sections 4.2
and 4.4).

A pair is a cell and a direction of the half disc, so each unordered pair counts once. Its line is
every cell of the box that the two ends span whose center lies less than one cell from the straight
line through them. Cut along its shorter side such a line is a few unbroken runs, and the runs of
one length are shared by all lines and all cells. So the maximum over every line costs min(|dy|,
|dx|) elementwise maxima of shifted views, and no table of paths exists anywhere.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

Direction = tuple[int, int]


class Run(NamedTuple):
    """Unbroken cells of a line: the offset of the first one from the source, and their number."""

    y: int
    x: int
    length: int


class Line(NamedTuple):
    """One direction's line, as runs along rows (`along_rows`) or along columns."""

    direction: Direction
    along_rows: bool
    runs: tuple[Run, ...]


@lru_cache
def directions(radius: int) -> tuple[Direction, ...]:
    """Return (dy, dx) of the half disc dy^2 + dx^2 < radius^2, dx > 0 where dy = 0; a radius below
    2 relates no two cells.
    """
    disc = ((dy, dx) for dy in range(radius) for dx in range(1 - radius, radius))
    return tuple(
        (dy, dx) for dy, dx in disc if (dy > 0 or dx > 0) and dy * dy + dx * dx < radius * radius
    )


@lru_cache
def line_cells(dy: int, dx: int) -> tuple[Direction, ...]:
    """Return the cells on the line from (0, 0) to (dy, dx): those of its box nearer than 1."""
    box = ((y, x) for y in range(dy + 1) for x in range(min(dx, 0), max(dx, 0) + 1))
    return tuple((y, x) for y, x in box if (dy * x - dx * y) ** 2 < dy * dy + dx * dx)


@lru_cache
def lines(radius: int) -> tuple[Line, ...]:
    """Return every direction's line as the runs that cover it, cut along the side that needs fewer
    runs.
    """
    return tuple(_line(dy, dx) for dy, dx in directions(radius))


def _line(dy: int, dx: int) -> Line:
    along_rows = dy <= abs(dx)
    cells = line_cells(dy, dx)
    runs = []
    for cut in sorted({y if along_rows else x for y, x in cells}):
        members = [(y, x) for y, x in cells if (y if along_rows else x) == cut]
        runs.append(Run(*min(members), len(members)))
    return Line((dy, dx), along_rows, tuple(runs))


def line_maxima(values: Tensor, pitch: int, radius: int) -> Iterator[tuple[Direction, Tensor]]:
    """Yield for every direction the maximum of `values` over the line from every source cell.

    `values` [L] holds grids row by row, `pitch` cells a row, with reach = radius - 1 extra cells
    before the first source and reach * (pitch + 1) after the last. Yields ((dy, dx), maxima [L -
    reach * (pitch + 2)]): entry i belongs to the source values[reach + i]. Lines that leave a row
    wrap into its neighbors: pad or mask such pairs. A yielded tensor is only valid until the next
    one and must not be written to. Any dtype that has a maximum; nan spreads.
    """
    reach = radius - 1
    count = values.numel() - reach * (pitch + 2)
    longest = max(run.length for line in lines(radius) for run in line.runs)
    rows = _run_maxima(values, 1, longest)
    columns = _run_maxima(values, pitch, longest)
    buffer = values.new_empty(count)
    for line in lines(radius):
        table = rows if line.along_rows else columns
        first, *others = [
            table[run.length].narrow(0, reach + run.y * pitch + run.x, count) for run in line.runs
        ]
        maximum = first
        for other in others:
            maximum = torch.maximum(maximum, other, out=buffer)
        yield line.direction, maximum


def _run_maxima(values: Tensor, stride: int, longest: int) -> dict[int, Tensor]:
    """Return, by length l, the maximum of values[i], values[i + stride], ... (l values) for every
    i.
    """
    table = {1: values}
    for length in range(2, longest + 1):
        shorter = table[length - 1]
        ahead = values[stride * (length - 1) :]
        if ahead.numel() == 0:
            break
        table[length] = torch.maximum(shorter[: ahead.numel()], ahead)
    return table
