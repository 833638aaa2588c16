"""SAM-segment contrasting, SSC (paper, section 3.2): pixels of a segment are drawn to its
prototype, away from the others'.

    pt_i = mean of F_p over p in SE_i,   loss = mean over p in SE_i of -ln softmax_j(cos(F_p, pt_j) / T)[i]

F at a pixel is the coarse feature map interpolated bilinearly. As that is linear, no feature need
be interpolated at all: a prototype is a weighted mean of the coarse cells, and the products F_p .
pt_j are the interpolated products of the cells with pt_j. What is made at the pixels are these
products alone, a number a segment instead of D channels, and a few rows of pixels at a time.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 1 << 19
"""Products made at a time: few enough for a processor's cache."""
SMALLEST = 1e-12
"""Squared length below which a feature counts as zero: it then has cosine 0 with every prototype.
"""
NONE = -1
"""Target of a pixel without a segment."""


class Taps(NamedTuple):
    """Bilinear interpolation of one axis: the two cells [P,2] that each pixel lies between, and
    their weights [P,2].
    """

    cells: Tensor
    weights: Tensor

    def matrix(self, cells: int) -> Tensor:
        """The same as weights [P,cells] of all cells."""
        return self.weights.new_zeros(len(self.cells), cells).scatter_add(
            1, self.cells, self.weights
        )


def segment_contrast(features: Tensor, segments: Tensor, temperature: float, stride: int) -> Tensor:
    """SSC loss of a batch: the mean over its images, each the mean over its pixels in segments; 0
    for an image without any.

    features: [B,D,h,w]; segments: integer [B,H,W], 0 = none; every stride-th pixel of every
    stride-th row takes part. An image's own segments alone are its prototypes, so the rest of the
    batch changes nothing. Pixels and prototypes learn alike.
    """
    sizes = zip(segments.shape[1:], features.shape[2:], strict=True)
    rows, columns = (taps(side, cells, stride, features) for side, cells in sizes)
    places = segments[:, stride // 2 :: stride, stride // 2 :: stride].long()
    images = zip(features, *ranks(places), strict=True)
    losses = [_image(*image, rows, columns, temperature) for image in images]
    return torch.stack(losses).mean()


def taps(side: int, cells: int, stride: int, like: Tensor) -> Taps:
    """How `cells` that span `side` pixels are interpolated to the pixels stride // 2, stride // 2 +
    stride, ...
    """
    pixels = torch.arange(stride // 2, side, stride, dtype=torch.float64, device=like.device)
    where = ((pixels + 0.5) * (cells / side) - 0.5).clamp(0, cells - 1)
    low = where.floor().long()
    share = (where - low).to(like.dtype)
    return Taps(
        torch.stack([low, (low + 1).clamp(max=cells - 1)], 1), torch.stack([1 - share, share], 1)
    )


def _image(
    features: Tensor, targets: Tensor, count: int, rows: Taps, columns: Taps, temperature: float
) -> Tensor:
    """The loss of one image: features [D,h,w], targets [P,Q] below count, or NONE, at the pixels of
    the taps.
    """
    if count == 0:
        return features.new_zeros(())
    down, across = rows.matrix(features.shape[1]), columns.matrix(features.shape[2])
    weights = cell_weights(targets, count, rows, columns, tuple(features.shape[1:]))
    prototypes = F.normalize(weights.flatten(1) @ features.flatten(1).T, dim=1)
    products = across @ torch.einsum("nd,dhw->hwn", prototypes, features)  # [h,Q,N]
    factors = 1 / (temperature * lengths(features, down, across))
    step, total = max(1, CHUNK // products[0].numel()), features.new_zeros(())
    for start in range(0, len(down), step):
        part = slice(start, start + step)
        arguments = (products, down[part], factors[part], targets[part])
        total = total + checkpoint(_rows, *arguments, use_reentrant=False, preserve_rng_state=False)
    return total / (targets != NONE).sum()


def _rows(products: Tensor, down: Tensor, factors: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of a few rows of pixels."""
    logits = (down @ products.flatten(1)).view(-1, products.shape[2]) * factors.flatten()[:, None]
    return F.cross_entropy(logits, targets.flatten(), ignore_index=NONE, reduction="sum")


def ranks(ids: Tensor) -> tuple[Tensor, list[int]]:
    """Number in each image those ids [B,P,Q] above 0 that occur from 0 on: targets [B,P,Q], NONE
    where ids are 0, and how many.
    """
    flat = ids.flatten(1)
    occurs = ids.new_zeros(len(ids), int(ids.max()) + 1, dtype=torch.bool).scatter_(1, flat, True)
    occurs[:, 0] = False
    numbers = torch.where(occurs, occurs.cumsum(1) - 1, NONE)
    return numbers.gather(1, flat).view(ids.shape), occurs.sum(1).tolist()


def cell_weights(
    targets: Tensor, count: int, rows: Taps, columns: Taps, size: tuple[int, ...]
) -> Tensor:
    """The weights [N,h,w] of the cells in the mean of the interpolated features over the pixels of
    each of the N targets [P,Q].
    """
    height, width = size
    sums = rows.weights.new_zeros((count + 1) * height * width)
    for y in (0, 1):
        for x in (0, 1):
            cells = rows.cells[:, y, None] * width + columns.cells[:, x]
            shares = rows.weights[:, y, None] * columns.weights[:, x]
            sums.index_add_(
                0, ((targets - NONE) * (height * width) + cells).flatten(), shares.flatten()
            )
    sums = sums.view(count + 1, height, width)[1:]  # the first are those of NONE
    return sums / sums.sum((1, 2), keepdim=True)


def lengths(features: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Lengths [P,Q] of the interpolated features; a pixel lies between two rows of cells, hence
    squares and a mixed term.
    """
    rows = features @ across.T  # [D,h,Q]
    squares = down.square() @ rows.square().sum(0)
    mixed = (down[:, :-1] * down[:, 1:]) @ (rows[:, :-1] * rows[:, 1:]).sum(0)
    return (squares + 2 * mixed).clamp(min=SMALLEST).sqrt()
