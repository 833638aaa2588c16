"""The random walk that carries class maps to the boundaries of objects (IRNet, section 5.2).

A walker goes from cell i to cell j within the radius with probability T_ij = a_ij^beta / sum_k
a_kj^beta, and its affinity a is 1 minus the largest boundary on the line between them. The result
is the seeds after T^steps. T is never built:

* It is a stencil. All neighbors in one direction are one shifted view, so a step is one fused
  multiply-add per direction, and half the stencil is stored as a_ij = a_ji.
* It is similar to the symmetric M = S^-1/2 A S^-1/2 (S the column sums of A = a^beta), whose
  eigenvalues lie in [-1, 1]. There x^steps is a short sum of Chebyshev polynomials: 256 steps take
  about 70 products (Sachdeva and Vishnoi, "Faster Algorithms via Approximation Theory", section 3).

Images lie on a strip, one below the other, between cells of boundary 1 that nothing crosses. One
image or hundreds of unequal size are therefore the same few thousand operations, on CPU and GPU,
and memory grows with the cells. How many images go together depends on the device: few enough for
a CPU's cache, enough to keep a GPU busy.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import accumulate
from math import comb
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.core.artifacts import Record
from pipeline.irnet.paths import directions, line_maxima

VALUES_AT_ONCE = {"cpu": 2**15, "cuda": 2**23}
"""Values computed together; on a GPU an operator on few takes as long as one on many."""


def groups(stacks: Sequence[Tensor]) -> Iterator[slice]:
    """Yield the ranges of consecutive images to compute together, of stacks [K,h,w] on one device.

    The cost of a range is its number of cells times its largest K.
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


ONE_THREAD = 2**18
"""Values on a strip up to which CPU threads spend longer synchronizing than computing."""


@torch.no_grad()
def random_walk(
    boundaries: Sequence[Tensor],
    maps: Sequence[Tensor],
    *,
    radius: int = 5,
    beta: float = 10.0,
    steps: int = 256,
    tolerance: float = 1e-5,
) -> list[Tensor]:
    """Return every image's maps after `steps` steps of the walk: one tensor [K,h,w] per image.

    Seeds are maps * (1 - boundary); each result is a weighted mean of its map's seeds. All tensors
    are on one device and of any floating type; results are float32 (float64 if a boundary is).

    Args:
        boundaries: [h,w] in [0,1] per image.
        maps: [K,h,w] per image, finite, as artifacts are; K may be 0 and may differ between images.
        radius: of a step in cells.
        beta: exponent > 0 that sharpens affinities.
        steps: of the walk.
        tolerance: bounds the error of the polynomial for x^steps on [-1, 1].
    """
    precise = any(boundary.dtype == torch.float64 for boundary in boundaries)
    walls = [boundary.to(torch.float64 if precise else torch.float32) for boundary in boundaries]
    seeds = [stack.to(wall.dtype) * (1 - wall) for wall, stack in zip(walls, maps, strict=True)]
    coefficients = chebyshev_coefficients(steps, tolerance)
    results: list[Tensor] = []
    for group in groups(seeds):
        results += _walk_strip(walls[group], seeds[group], radius, beta, coefficients)
    return results


def background_seeds(maps: Tensor, exponent: float) -> Tensor:
    """Return the seeds of the background, (1 - max_c M_c)^exponent, [1,h,w], of the class maps M
    [K,h,w] in [0,1] of an image (AffinityNet, Ahn and Kwak, CVPR 2018); 1 without classes.
    """
    none = maps.new_zeros(1, *maps.shape[1:])
    return (1 - torch.cat([maps, none]).amax(0, keepdim=True)).pow(exponent)


def walked_record(walked: np.ndarray, classes: np.ndarray, size: np.ndarray) -> Record:
    """Return the record of walk.h5 of walked maps [M+1,h,w], the background last, the class of each
    but the last [M], and the size of the image (H,W).
    """
    halves = walked.astype(np.float16)
    return {"maps": halves[:-1], "background": halves[-1], "classes": classes, "size": size}


def chebyshev_coefficients(steps: int, tolerance: float) -> list[float]:
    """Return c with x^steps = sum_j c_j T_j(x) on [-1, 1] up to an error of about `tolerance`.

    c_j = 2^(1 - steps) binom(steps, (steps - j) / 2) for j of the parity of steps, half of it for j
    = 0; so c_{j+2} = c_j (steps - j) / (steps + j + 2), twice that for j = 0. All are positive and
    sum to 1, so truncating where the remainder is within tolerance errs by at most that. The kept
    ones are rescaled to sum to 1, so that the walk's fixed points, such as constant seeds, are
    preserved.
    """
    first = steps % 2
    share = float(Fraction(comb(steps, steps // 2) * (1 + first), 2**steps))
    kept, total = [0.0] * first, 0.0
    for degree in range(first, steps + 1, 2):
        kept += [share] if degree == first else [0.0, share]
        total += share
        if total >= 1 - tolerance:
            break
        share *= (steps - degree) / (steps + degree + 2) * (1 if degree else 2)
    return [coefficient / total for coefficient in kept]


class _Strip(NamedTuple):
    """The layout of images one below the other, with radius - 1 empty rows after each image and as
    many empty cells after each row.
    """

    sizes: list[tuple[int, int]]
    tops: list[int]
    pitch: int
    rows: int
    radius: int

    @property
    def cells(self) -> int:
        """Number of cells of the strip."""
        return self.rows * self.pitch

    @property
    def margin(self) -> int:
        """Number of cells before and after the strip that its cells' neighbors reach."""
        return (self.radius - 1) * (self.pitch + 1)

    def offsets(self) -> list[int]:
        """Return the distance along the strip to each neighbor, in the order of `directions`."""
        return [dy * self.pitch + dx for dy, dx in directions(self.radius)]


def _lay_out(shapes: Sequence[Sequence[int]], radius: int) -> _Strip:
    sizes = [(height, width) for height, width in shapes]
    reach = radius - 1
    *tops, rows = accumulate((height + reach for height, _ in sizes), initial=0)
    return _Strip(sizes, tops, max(width for _, width in sizes) + reach, rows, radius)


def _place(stacks: Sequence[Tensor], strip: _Strip, fill: float) -> Tensor:
    """Return the images' stacks [K,h,w] on a strip [K,cells], filled with `fill` elsewhere."""
    canvas = stacks[0].new_full((max(map(len, stacks)), strip.rows, strip.pitch), fill)
    for stack, cut in zip(stacks, _cuts(stacks, strip), strict=True):
        canvas[cut] = stack
    return canvas.flatten(-2)


def _cuts(stacks: Sequence[Tensor], strip: _Strip) -> Iterator[tuple[slice, ...]]:
    for stack, top, (height, width) in zip(stacks, strip.tops, strip.sizes, strict=True):
        yield slice(0, len(stack)), slice(top, top + height), slice(0, width)


def _strip_affinities(boundary: Tensor, strip: _Strip) -> Tensor:
    """Return affinities [D, margin + cells] of a strip's boundary [cells], 1 on its empty cells."""
    reach = strip.radius - 1
    padded = torch.nn.functional.pad(boundary, (reach, reach * (strip.pitch + 1)), value=1.0)
    result = boundary.new_zeros(len(directions(strip.radius)), strip.margin + strip.cells)
    for row, (_, largest) in zip(
        result, line_maxima(padded, strip.pitch, strip.radius), strict=True
    ):
        torch.sub(1, largest, out=row[strip.margin :])
    return result


class _Stencil(NamedTuple):
    """The symmetric 2M on a strip: diagonal [cells], weights [D, margin + cells]; and S^1/2
    [cells].
    """

    diagonal: Tensor
    weights: Tensor
    root: Tensor


def _stencil(boundary: Tensor, strip: _Strip, beta: float) -> _Stencil:
    weights = _strip_affinities(boundary, strip).pow_(beta)
    first, last = strip.margin, strip.margin + strip.cells
    # An error in the sums recurs at every step: float32 sums would cost 3e-4 of the peak after 256.
    sums = torch.ones_like(boundary, dtype=torch.float64)
    for weight, offset in zip(weights, strip.offsets(), strict=True):
        wide = weight.double()
        sums += wide[first:last]
        sums += wide[first - offset : last - offset]
    scale = torch.nn.functional.pad(sums.rsqrt().to(boundary.dtype), (strip.margin, strip.margin))
    for weight, offset in zip(weights, strip.offsets(), strict=True):
        weight[first:last] *= scale[first:last]
        weight[first:last] *= scale[first + offset : last + offset]
    return _Stencil((2 / sums).to(boundary.dtype), weights.mul_(2), sums.sqrt().to(boundary.dtype))


def _walk_strip(
    boundaries: Sequence[Tensor],
    seeds: list[Tensor],
    radius: int,
    beta: float,
    coefficients: list[float],
) -> list[Tensor]:
    strip = _lay_out([boundary.shape for boundary in boundaries], radius)
    (boundary,) = _place([wall[None] for wall in boundaries], strip, fill=1.0)
    stencil = _stencil(boundary, strip, beta)
    start = _place(seeds, strip, fill=0.0)
    with _threads(1 if start.numel() <= ONE_THREAD else torch.get_num_threads()):
        walked = _chebyshev_sum(start * stencil.root, stencil, strip, coefficients) / stencil.root
    walked = walked.unflatten(-1, (strip.rows, strip.pitch))
    return [
        _within(walked[cut], seed) for cut, seed in zip(_cuts(seeds, strip), seeds, strict=True)
    ]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with `count` CPU threads; their number changes no value."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _chebyshev_sum(
    start: Tensor, stencil: _Stencil, strip: _Strip, coefficients: list[float]
) -> Tensor:
    """Return sum_j c_j T_j(M) start for start [K, cells], by T_j+1 = 2 M T_j - T_j-1 in two
    buffers.
    """
    total = start * coefficients[0]
    if len(coefficients) == 1 or start.numel() == 0:
        return total
    padded = torch.nn.functional.pad(start, (strip.margin, strip.margin))
    before, now = _Term(padded, stencil, strip), _Term(torch.zeros_like(padded), stencil, strip)
    now.values.addcmul_(stencil.diagonal, before.values)
    for weight, neighbor in before.neighbors:
        now.values.addcmul_(weight, neighbor)
    now.values.div_(2)
    total.add_(now.values, alpha=coefficients[1])
    for coefficient in coefficients[2:]:
        before.values.neg_().addcmul_(stencil.diagonal, now.values)
        for weight, neighbor in now.neighbors:
            before.values.addcmul_(weight, neighbor)
        before, now = now, before
        if coefficient:
            total.add_(now.values, alpha=coefficient)
    return total


class _Term:
    """The values [K, cells] of a polynomial and the shifted views that a step reads, which are
    costly to create again.
    """

    def __init__(self, padded: Tensor, stencil: _Stencil, strip: _Strip) -> None:
        first, cells = strip.margin, strip.cells
        self.values = padded.narrow(-1, first, cells)
        self.neighbors: list[tuple[Tensor, Tensor]] = []
        for weight, offset in zip(stencil.weights, strip.offsets(), strict=True):
            for weight_at, value_at in ((first, first + offset), (first - offset, first - offset)):
                pair = weight.narrow(0, weight_at, cells), padded.narrow(-1, value_at, cells)
                self.neighbors.append(pair)


def _within(walked: Tensor, seeds: Tensor) -> Tensor:
    """Clamp walked maps to the range of their seeds, which only rounding lets a mean leave."""
    if seeds.numel() == 0:
        return walked.clone()
    low, high = seeds.flatten(1).aminmax(dim=1)
    return walked.clamp(low[:, None, None], high[:, None, None])
