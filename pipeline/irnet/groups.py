"""Pictures of any size that are computed together: little enough for a CPU's cache, enough to keep a GPU busy."""

from collections.abc import Iterator, Sequence

from torch import Tensor

VALUES_AT_ONCE = {"cpu": 2**15, "cuda": 2**23}
"""Numbers computed together. On a GPU an operator on a few takes as long as one on many."""


def groups(stacks: Sequence[Tensor]) -> Iterator[slice]:
    """Yield the ranges of consecutive pictures to compute together, of stacks [K,h,w] on one device.

    All stacks of a range count with the largest K among them, which is what they take beside each other.
    """
    start, cells, depth = 0, 0, 1
    for number, stack in enumerate(stacks):
        more = stack.shape[-2] * stack.shape[-1]
        deepest = max(depth, len(stack))
        if number > start and (cells + more) * deepest > VALUES_AT_ONCE[stack.device.type]:
            yield slice(start, number)
            start, cells, deepest = number, 0, max(1, len(stack))
        cells, depth = cells + more, deepest
    if stacks:
        yield slice(start, len(stacks))
