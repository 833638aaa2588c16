"""What an instance model finds in a picture, and the size at which it looks at it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Detections(NamedTuple):
    """Instances of a picture: masks bool [N,H,W], which may overlap, classes int64 [N], scores [N] in [0,1]; N may be 0."""

    masks: Tensor
    classes: Tensor
    scores: Tensor


def none_found(height: int, width: int) -> Detections:
    """The result of a picture in which nothing is found."""
    return Detections(
        torch.zeros(0, height, width, dtype=torch.bool), torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    )


def resized(pictures: Tensor, sides: Sequence[int]) -> Tensor:
    """Pictures [B,3,H,W] in 0..255 with a shorter side of sides[0] pixels, or less where the longer one would exceed sides[1]."""
    low, high = sorted(pictures.shape[2:])
    factor = min(sides[0] / low, sides[1] / high)
    size = [max(1, round(side * factor)) for side in pictures.shape[2:]]
    return F.interpolate(pictures.float(), size, mode="bilinear", align_corners=False, antialias=factor < 1)
