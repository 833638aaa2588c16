"""Puzzle-CAM (Jo and Yu, ICIP 2021): the class maps A^s of an image and the maps A^re merged from
those of its tiles are both classified, and should agree.

    loss = L_cls + L_p-cls + alpha(t) L_re
    L_cls = l(GAP(A^s), y),  L_p-cls = l(GAP(A^re), y),
    L_re = |A^s - A^re|_1 over the present classes,  alpha(t) = min(alpha t / ramp, alpha)

with l the multi-label soft margin and t the share of the steps done. What L_re compares is `level`:
the logits themselves (`feature`, the default of the published code), or rectified maps, each
divided by its maximum (`cam`, a switch of that code), which has no pull on the maps' scale and none
on negative cells. Both sides learn from it, as published, and through the maximum.

Next to the seams the tiles see their zero padding instead of the image. `margin` leaves that many
cells on both sides of a seam out of L_re (0 published): with tiles of 8x8 cells, 44 % lie within
two cells of a seam, with the paper's 16x16, 23 %.

`reduction` is what the mean of L_re is over: with `all`, as published, all classes, the absent ones
counting 0, so that an image of one class out of twenty weighs a twentieth; with `present`, the
image's own classes, so that alpha means the same for any number of classes. With k of C classes
present, alpha a with `present` is alpha a C/k with `all`.

Differences from the published code: the grid of tiles is arbitrary, and checked against the crop;
the batch may have any size; the momentum parameter takes effect (there it is lost).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.classifiers.base import (
    Classifier,
    TrainingData,
    classification_loss,
    normalize,
    present,
)
from pipeline.core.trainer import LossFn, TrainState
from pipeline.errors import UserError
from pipeline.nets.backbones import OUTPUT_STRIDE

Level = Literal["cam", "feature"]
Reduction = Literal["present", "all"]


class GridError(UserError):
    """The crop cannot be split into the grid of tiles, or the margin covers the tiles; the message
    proposes what works.
    """


class PuzzleCam(Classifier):
    """The plain classifier; training runs it on whole images and on their tiles."""

    def forward(self, images: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return class maps A^s and A^re, both [B,C,h,w], of images [B,3,H,W] in 0..255.

        grid: rows and columns of tiles. The tiles of all images are one batch of as many pixels as
        the images, so this takes twice the time.
        """
        normalized = self.backbone.normalize(images)
        tiles = tile(normalized, grid).contiguous(memory_format=torch.channels_last)
        whole, parts = self.head(self.features(normalized)), self.head(self.features(tiles))
        return whole, merge(parts, grid)

    @staticmethod
    def loss_fn(data: TrainingData, **options: Any) -> LossFn:
        """Return the PuzzleCamLoss; raises GridError if the crop does not fit grid and margin."""
        loss = PuzzleCamLoss(**options)
        check_grid(data.crop, loss.grid, loss.margin)
        return loss


@dataclass(frozen=True, slots=True)
class PuzzleCamLoss:
    """The loss of a batch (images [B,3,S,S], tags [B,C]) and its terms `cls`, `p_cls`, `re`.

    Args:
        grid: Rows and columns of tiles.
        alpha: Weight of `re` after the ramp.
        ramp: Share of the training over which that weight rises from 0.
        reduction, level, margin: What `re` averages and compares, see the module's docstring.
    """

    grid: tuple[int, int]
    alpha: float
    ramp: float
    reduction: Reduction
    level: Level
    margin: int

    def __call__(
        self, network: nn.Module, batch: tuple[Tensor, Tensor], step: TrainState
    ) -> Mapping[str, Tensor]:
        """Return `loss`, the weighted sum, and its terms."""
        images, tags = batch
        whole, merged = (maps.float() for maps in network(images, self.grid))
        cls = classification_loss(whole.mean((2, 3)), tags)
        p_cls = classification_loss(merged.mean((2, 3)), tags)
        counted = away_from_seams(whole, self.grid, self.margin)
        re = reconstruction_loss(whole, merged, present(tags), self.reduction, self.level, counted)
        weight = reconstruction_weight(step.progress, self.alpha, self.ramp)
        return {"loss": cls + p_cls + weight * re, "cls": cls, "p_cls": p_cls, "re": re}


def tile(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Split [B,K,H,W] into tiles [rows*columns*B,K,H/rows,W/columns], all top left ones first.

    The rows and columns of `grid` must divide the sides.
    """
    rows, columns = grid
    samples, channels, height, width = images.shape
    cut = images.reshape(samples, channels, rows, height // rows, columns, width // columns)
    return cut.permute(2, 4, 0, 1, 3, 5).flatten(0, 2)


def merge(tiles: Tensor, grid: tuple[int, int]) -> Tensor:
    """Merge tiles [rows*columns*B,K,h,w], in the order of `tile`, into [B,K,rows*h,columns*w]."""
    rows, columns = grid
    _, channels, height, width = tiles.shape
    cut = tiles.reshape(rows, columns, -1, channels, height, width)
    return cut.permute(2, 3, 0, 4, 1, 5).flatten(4, 5).flatten(2, 3)


def check_grid(crop: int, grid: tuple[int, int], margin: int) -> None:
    """Raise GridError unless the output stride divides the tiles' sides, so that their maps fit,
    and the margin leaves cells of them.
    """
    unit = math.lcm(*(OUTPUT_STRIDE * parts for parts in grid))
    if crop % unit:
        working = max(1, round(crop / unit)) * unit
        raise GridError(
            f"classifier.crop, classifier.puzzlecam.grid: a crop of {crop} cannot be split into "
            f"{grid[0]}x{grid[1]} tiles with sides that {OUTPUT_STRIDE} divides; set "
            f"classifier.crop to a multiple of {unit}, such as {working}"
        )
    cells = crop // OUTPUT_STRIDE // max(grid)
    if margin >= cells:
        raise GridError(
            f"classifier.puzzlecam.margin: {margin} covers tiles of {cells} cells; "
            f"use 0 to {cells - 1}"
        )


def reconstruction_weight(progress: float, alpha: float, ramp: float) -> float:
    """Return alpha(t) at `progress` in [0,1]: it rises linearly to alpha over the share `ramp` of
    the training, and is alpha from the start if that is 0.
    """
    return alpha * min(progress / ramp, 1.0) if ramp else alpha


def reconstruction_loss(
    whole: Tensor,
    merged: Tensor,
    tags: Tensor,
    reduction: Reduction,
    level: Level,
    counted: Tensor,
) -> Tensor:
    """Return L_re of maps [B,C,h,w] with tags 0/1 [B,C].

    The mean is over the cells where `counted` [h,w] is 1, over the images, and over the classes of
    each image (`present`; 0 without any) or all classes (`all`).
    """
    if level == "cam":
        whole, merged = normalize(whole.relu()), normalize(merged.relu())
    difference = ((whole - merged).abs() * counted).sum((2, 3)) / counted.sum() * tags
    if reduction == "all":
        return difference.mean()
    return (difference.sum(1) / tags.sum(1).clamp(min=1)).mean()


def away_from_seams(maps: Tensor, grid: tuple[int, int], margin: int) -> Tensor:
    """Return 1 at the cells [h,w] of maps [...,h,w] with at least `margin` cells between them
    and the nearest seam, else 0; the border of the image is no seam.
    """
    rows, columns = (
        _far_from_seams(side, parts, margin).to(maps)
        for side, parts in zip(maps.shape[-2:], grid, strict=True)
    )
    return rows[:, None] * columns


def _far_from_seams(side: int, parts: int, margin: int) -> Tensor:
    """Return whether each of `side` cells in `parts` equal runs is away from all inner seams."""
    centers = torch.arange(side)[:, None] + 0.5
    seams = torch.arange(1, parts) * (side // parts)
    return ((centers - seams).abs() > margin).all(1)
