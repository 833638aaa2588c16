"""Puzzle-CAM's loss: an image's maps A^s and the maps A^re put together from its tiles, both
classified and held against each other.

    loss = L_cls + L_p-cls + alpha(t) L_re
    L_cls = l(GAP(A^s), y),  L_p-cls = l(GAP(A^re), y),  L_re = |A^s - A^re|_1 over the present classes,
    alpha(t) = min(alpha t / ramp, alpha)

with l the plain classifier's multi-label soft margin and t the share of the steps done. L_re
compares logits, without ReLU, and both sides learn from it, as published. `reduction` says what its
mean is over: `all` is published (all classes, the absent ones counting 0, so that an image of one
class out of twenty weighs a twentieth); with `present` it is each image's own classes, so that
alpha means the same for any number of classes. Differences from the published code: any grid of
tiles, checked to fit, any batch, and the momentum is what the parameters say (there it is lost).
"""

import math
from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.classifiers.base import TaggedCrops, TrainingData
from pipeline.core.trainer import LossFn, Samples, Step
from pipeline.errors import UserError
from pipeline.nets.backbones import OUTPUT_STRIDE

Reduction = Literal["present", "all"]


class GridError(UserError):
    """The crops cannot be cut into the grid of tiles; the message says which size would do."""


def samples(material: TrainingData) -> Samples:
    """Crops with tags."""
    return TaggedCrops(material)


def objective(
    material: TrainingData, grid: tuple[int, int], alpha: float, ramp: float, reduction: Reduction
) -> LossFn:
    """The losses `cls`, `p_cls` and `re` of a batch (images [B,3,S,S], targets [B,C]).

    grid: rows and columns of tiles; alpha: weight of `re` once it is fully in; ramp: share of the
    training over which it rises; reduction: see the module's docstring. Raises GridError if the
    crop does not fit the grid.
    """
    check_grid(material.crop, grid)

    def losses(
        network: nn.Module, batch: tuple[Tensor, Tensor], step: Step
    ) -> Mapping[str, Tensor]:
        """`loss`, the weighted sum, and its terms."""
        images, targets = batch
        whole, merged = (maps.float() for maps in network(images, grid))
        cls = F.multilabel_soft_margin_loss(whole.mean((2, 3)), targets)
        p_cls = F.multilabel_soft_margin_loss(merged.mean((2, 3)), targets)
        re = reconstruction_loss(whole, merged, targets, reduction)
        weight = reconstruction_weight(step.progress, alpha, ramp)
        return {"loss": cls + p_cls + weight * re, "cls": cls, "p_cls": p_cls, "re": re}

    return losses


def check_grid(crop: int, grid: tuple[int, int]) -> None:
    """Raise GridError unless tiles of a square `crop` have sides that divide by the output stride,
    so that their maps fit together.
    """
    unit = math.lcm(*(OUTPUT_STRIDE * parts for parts in grid))
    if crop % unit:
        working = max(1, round(crop / unit)) * unit
        raise GridError(
            f"classifier.crop, classifier.puzzlecam.grid: a crop of {crop} cannot be cut into {grid[0]}x{grid[1]} tiles whose "
            f"sides divide by {OUTPUT_STRIDE}; set classifier.crop to a multiple of {unit}, such as {working}"
        )


def reconstruction_weight(progress: float, alpha: float, ramp: float) -> float:
    """alpha(t) at `progress` in [0,1]: it rises linearly to alpha over the share `ramp` of the
    training, at once if that is 0.
    """
    return alpha * min(progress / ramp, 1.0) if ramp else alpha


def reconstruction_loss(
    whole: Tensor, merged: Tensor, targets: Tensor, reduction: Reduction
) -> Tensor:
    """L_re of maps [B,C,h,w] with targets 0/1 [B,C].

    A mean over the cells, over the classes of each image (`present`; 0 without any) or all of them
    (`all`), and over the images.
    """
    difference = (whole - merged).abs().mean((2, 3)) * targets
    if reduction == "all":
        return difference.mean()
    return (difference.sum(1) / targets.sum(1).clamp(min=1)).mean()
