"""The instance context encoder: a feature pyramid with pooled context, fused into one map at stride 8 (paper, section 3.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.sparseinst.winograd import Conv3x3

BINS = (1, 2, 3, 6)
"""Cells a side that the coarsest features are pooled to."""


class PyramidPooling(nn.Module):
    """Context of the coarsest features from averages over 1, 2², 3² and 6² cells (Zhao et al., CVPR 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pools = nn.ModuleList([nn.AdaptiveAvgPool2d(bins) for bins in BINS])
        self.branches = nn.ModuleList([nn.Conv2d(width, width // 4, 1) for _ in BINS])
        self.merge = nn.Conv2d(width // 4 * len(BINS) + width, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """[B,D,h,w] to [B,D,h,w], not negative."""
        pooled = [
            branch(pool(features)).relu() for branch, pool in zip(self.branches, self.pools, strict=True)
        ]
        spread = [_resize(part, features) for part in pooled]
        return self.merge(torch.cat([*spread, features], 1)).relu()


class Encoder(nn.Module):
    """Features at strides 8, 16 and 32 to one map at stride 8.

    channels: of the three maps, fine to coarse; width: D, channels of the result. Layers are listed from coarse to fine.
    """

    def __init__(self, channels: Sequence[int], width: int = 256) -> None:
        super().__init__()
        self.laterals = nn.ModuleList([nn.Conv2d(given, width, 1) for given in reversed(channels)])
        self.outputs = nn.ModuleList([Conv3x3(width, width) for _ in channels])
        self.pooling = PyramidPooling(width)
        self.fuse = nn.Conv2d(width * len(channels), width, 1)
        for layer in (*self.laterals, *self.outputs):
            nn.init.kaiming_uniform_(layer.get_parameter("weight"), a=1)
            nn.init.zeros_(layer.get_parameter("bias"))
        nn.init.kaiming_normal_(self.fuse.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fuse.get_parameter("bias"))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps [B,C,h,w], [B,C',h/2,w/2] and [B,C'',h/4,w/4] to [B,D,h,w]; h and w must divide by 4."""
        sums: list[Tensor] = []
        for lateral, given in zip(self.laterals, reversed(features), strict=True):
            mapped = lateral(given)
            sums.append(mapped + F.interpolate(sums[-1], scale_factor=2.0) if sums else self.pooling(mapped))
        levels = [output(part) for output, part in zip(self.outputs, sums, strict=True)]
        return self._fused(levels[::-1])

    def _fused(self, levels: Sequence[Tensor]) -> Tensor:
        """The 1x1 convolution of all levels resized to the finest and concatenated.

        Convolving each level where it is and resizing afterwards is the same, as neither mixes what the other does, and cheaper.
        """
        finest, *coarser = levels
        weights = self.fuse.weight.chunk(len(levels), 1)
        fused = F.conv2d(finest, weights[0], self.fuse.bias)
        for level, weight in zip(coarser, weights[1:], strict=True):
            fused = fused + _resize(F.conv2d(level, weight), finest)
        return fused


def _resize(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, like.shape[2:], mode="bilinear", align_corners=False)
