"""From predicted cells to masks at the size of the image.

Interpolation is linear along each axis, so in one step or several it is one matrix for the rows and
one for the columns. A pixel is in a mask only if a cell that it is interpolated from is. So each
mask is enlarged by itself, in the box that its cells reach, and nothing but bool is held of all
masks at the size of the image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.instances.sparseinst.network import MASK_STRIDE

RESIZINGS = ("single", "published")
"""From the cells straight to the image, or by way of the pixels of the network's input."""


class Axis(NamedTuple):
    """Interpolation along one axis: weights [P,c] of c cells at P pixels, and the first and last
    cell [P] with weight at each.
    """

    weights: Tensor
    first: np.ndarray
    last: np.ndarray

    def reach(self, start: int, stop: int) -> tuple[slice, slice]:
        """The pixels that cells start..stop - 1 have weight at, and all cells with weight at those;
        empty where there are none.
        """
        pixels = slice(
            int(np.searchsorted(self.last, start)), int(np.searchsorted(self.first, stop))
        )
        if pixels.start >= pixels.stop:
            return slice(0, 0), slice(0, 0)
        return pixels, slice(int(self.first[pixels.start]), int(self.last[pixels.stop - 1]) + 1)


def axis(cells: int, inner: int, size: int, resizing: str, like: Tensor) -> Axis:
    """How `cells` predicted along a side of `inner` pixels, padding left out, are brought to `size`
    pixels.
    """
    pixels = np.arange(size) + 0.5
    if resizing == "single":
        weights = _hats(pixels * (inner / size / MASK_STRIDE) - 0.5, cells)
    else:
        input_pixels = np.arange(inner) + 0.5
        weights = _hats(pixels * (inner / size) - 0.5, inner) @ _hats(
            input_pixels / MASK_STRIDE - 0.5, cells
        )
    positive = weights > 0
    first, last = positive.argmax(1), cells - 1 - positive[:, ::-1].argmax(1)
    return Axis(torch.from_numpy(weights).to(like, non_blocking=True), first, last)


def _hats(places: np.ndarray, cells: int) -> np.ndarray:
    """Weights [P,c] of bilinear interpolation at places [P], counted in cells from the middle of
    the first one.
    """
    inside = places.clip(0, cells - 1)
    return (1 - np.abs(inside[:, None] - np.arange(cells))).clip(0)


def enlarged(
    cells: Tensor, inner: Sequence[int], size: Sequence[int], threshold: float, resizing: str
) -> tuple[Tensor, Tensor]:
    """Masks bool [N,H,W], where probabilities [N,h,w] interpolated to the image exceed threshold,
    and which [N] have a pixel.

    inner: (H,W) of the image at the network's input, without padding; size: (H,W) of the image
    itself; resizing: `single` or `published`.
    """
    rows, columns = (
        axis(number, inside, side, resizing, cells)
        for number, inside, side in zip(cells.shape[1:], inner, size, strict=True)
    )
    above = cells > threshold
    masks = torch.zeros(len(cells), *size, dtype=torch.bool, device=cells.device)
    found = masks.new_zeros(len(cells))
    boxes = torch.stack([*_ends(above.any(2)), *_ends(above.any(1))], 1).tolist()
    for number, (top, bottom, left, right) in enumerate(boxes):
        (y, cells_y), (x, cells_x) = rows.reach(top, bottom), columns.reach(left, right)
        part = (
            rows.weights[y, cells_y]
            @ cells[number, cells_y, cells_x]
            @ columns.weights[x, cells_x].T
        )
        mask = part > threshold
        masks[number, y, x] = mask
        found[number] = mask.any()
    return masks, found


def _ends(touched: Tensor) -> tuple[Tensor, Tensor]:
    """First and last (exclusive) true place of each row of [N,c]; equal where there is none."""
    some, bytes_ = touched.any(1), touched.byte()
    stop = touched.shape[1] - bytes_.flip(1).argmax(1)
    start = bytes_.argmax(1)
    return start, torch.where(some, stop, start)
