"""Pictures of any size that are computed together: few enough cells for a CPU's cache, enough to keep a GPU busy."""

from collections.abc import Iterator, Sequence

from torch import Tensor

CELLS_AT_ONCE = {"cpu": 2**14, "cuda": 2**21}
"""Cells computed together. On a GPU an operator on few cells takes as long as one on many."""


def groups(grids: Sequence[Tensor]) -> Iterator[slice]:
    """Yield the ranges of consecutive pictures to compute together, of grids [...,h,w] on one device."""
    start, cells = 0, 0
    for number, grid in enumerate(grids):
        more = grid.shape[-2] * grid.shape[-1]
        cells += more
        if number > start and cells > CELLS_AT_ONCE[grid.device.type]:
            yield slice(start, number)
            start, cells = number, more
    if grids:
        yield slice(start, len(grids))
