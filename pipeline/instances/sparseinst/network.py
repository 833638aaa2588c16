"""SparseInst's encoder and decoder (Cheng et al., CVPR 2022, figure 2).

The instance context encoder (section 3.2) fuses a feature pyramid with pooled context into one map
at stride 8. In the decoder (section 3.3) instance activation maps point out objects, and kernels
made of the features under them cut out their masks:

    z_n = sum_x a_n(x) f(x) / sum_x a_n(x),  a = sigmoid(IAM)    features of query n
    m_n = w(z_n) . g                                             its mask, from mask features g
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BINS = (1, 2, 3, 6)
"""Cells per side that the coarsest features are pooled to."""
DEPTH = 4
"""3x3 convolutions of each branch of the decoder, as in the paper."""
KERNEL = 128
"""E, channels of mask kernels and mask features, as in the paper."""
PRIOR = 0.01
"""Initial probability of every class and activation of every pixel (focal loss, Lin et al., ICCV
2017, section 3.3).
"""
STRIDES = (8, 16, 32)
"""Of the backbone's maps that the encoder takes."""
MULTIPLE = 32
"""Sides of images are padded to multiples of it, so that each level is exactly half the size of the
one before.
"""
MASK_STRIDE = 4
"""Pixels of the padded image per cell of the predicted masks."""


class Outputs(NamedTuple):
    """Predictions of N queries: class logits [B,N,K], mask logits [B,N,H/4,W/4], objectness logits
    [B,N].
    """

    logits: Tensor
    masks: Tensor
    objectness: Tensor


class PyramidPooling(nn.Module):
    """Context of the coarsest features from averages over 1, 4, 9 and 36 cells (Zhao et al., CVPR
    2017).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pools = nn.ModuleList([nn.AdaptiveAvgPool2d(bins) for bins in BINS])
        self.branches = nn.ModuleList([nn.Conv2d(width, width // 4, 1) for _ in BINS])
        self.merge = nn.Conv2d(width // 4 * len(BINS) + width, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return features [B,D,h,w] >= 0 of features [B,D,h,w]."""
        pooled = [
            branch(pool(features)).relu()
            for branch, pool in zip(self.branches, self.pools, strict=True)
        ]
        spread = [_resize(part, features) for part in pooled]
        return self.merge(torch.cat([*spread, features], 1)).relu()


class Encoder(nn.Module):
    """The instance context encoder: features at strides 8, 16 and 32 to one map at stride 8.

    Args:
        channels: of the three maps, from fine to coarse; layers are listed from coarse to fine.
        width: D, channels of the result.
    """

    def __init__(self, channels: Sequence[int], width: int = 256) -> None:
        super().__init__()
        self.laterals = nn.ModuleList([nn.Conv2d(inputs, width, 1) for inputs in channels[::-1]])
        self.outputs = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in channels])
        self.pooling = PyramidPooling(width)
        self.fuse = nn.Conv2d(width * len(channels), width, 1)
        for layer in (*self.laterals, *self.outputs):
            nn.init.kaiming_uniform_(layer.get_parameter("weight"), a=1)
            nn.init.zeros_(layer.get_parameter("bias"))
        _init_conv(self.fuse)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return [B,D,h,w] of maps [B,C,h,w], [B,C',h/2,w/2] and [B,C'',h/4,w/4]; h and w must be
        divisible by 4.
        """
        sums: list[Tensor] = []
        for lateral, level in zip(self.laterals, features[::-1], strict=True):
            mapped = lateral(level)
            sums.append(
                mapped + F.interpolate(sums[-1], scale_factor=2.0) if sums else self.pooling(mapped)
            )
        levels = [output(part) for output, part in zip(self.outputs, sums, strict=True)]
        return self._fuse_levels(levels[::-1])

    def _fuse_levels(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the 1x1 convolution of all levels, resized to the finest and concatenated.

        Convolving each level at its own size and resizing afterwards is the same, as neither mixes
        what the other does, and cheaper.
        """
        finest, *coarser = levels
        weights = self.fuse.weight.chunk(len(levels), 1)
        fused = F.conv2d(finest, weights[0], self.fuse.bias)
        for level, weight in zip(coarser, weights[1:], strict=True):
            fused = fused + _resize(F.conv2d(level, weight), finest)
        return fused


class InstanceBranch(nn.Module):
    """Instance activation maps (IAM), the features pooled under them, and the class, mask kernel
    and objectness predicted from those (the published "group" decoder, with one group "base").

    Args:
        inputs: channels of the features.
        classes: K.
        queries: N.
        groups: activation maps per query, each from its own width / groups channels.
        normalization: how maps become weights of pixels: `sigmoid`, as in the paper, or `softmax`
            over the pixels, where the maps have no bias, as a constant would change nothing.
        width: channels of the convolutions.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        *,
        queries: int = 100,
        groups: int = 4,
        normalization: str = "sigmoid",
        width: int = 256,
    ) -> None:
        super().__init__()
        self.groups, self.normalization = groups, normalization
        self.convs = _convs(inputs, width)
        bias = normalization == "sigmoid"
        self.activation = nn.Conv2d(width, queries * groups, 3, padding=1, groups=groups, bias=bias)
        pooled = width * groups
        self.merge = (
            nn.Sequential(nn.Linear(pooled, pooled), nn.ReLU()) if groups > 1 else nn.Sequential()
        )
        self.classes = nn.Linear(pooled, classes)
        self.kernels = nn.Linear(pooled, KERNEL)
        self.objectness = nn.Linear(pooled, 1)
        self._init_weights()

    def _init_weights(self) -> None:
        """Set the published initial weights; the objectness keeps PyTorch's."""
        for layer in (self.activation, self.classes, self.kernels):
            nn.init.normal_(layer.weight, std=0.01)
        for bias in (self.activation.bias, self.classes.bias):
            if bias is not None:
                nn.init.constant_(bias, -math.log((1 - PRIOR) / PRIOR))
        nn.init.zeros_(self.kernels.bias)
        for linear in self.merge[:1]:  # none in the base decoder
            nn.init.kaiming_uniform_(linear.get_parameter("weight"), a=1)
            nn.init.zeros_(linear.get_parameter("bias"))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return class logits [B,N,K], kernels [B,N,E] and objectness logits [B,N] of [B,C,h,w]."""
        hidden = self.convs(features)
        pixels = hidden.flatten(2).transpose(1, 2)
        pooled = [self.normalize(maps) @ pixels for maps in self.activations(hidden)]
        merged = self.merge(torch.cat(pooled, 2))
        return self.classes(merged), self.kernels(merged), self.objectness(merged)[..., 0]

    def activations(self, hidden: Tensor) -> list[Tensor]:
        """Return the IAM logits [B,N,h,w] of each group from the features [B,D,h,w] after `convs`.

        One convolution per group: a grouped one takes twice as long on a CPU.
        """
        inputs, weights = hidden.chunk(self.groups, 1), self.activation.weight.chunk(self.groups)
        bias = self.activation.bias
        biases = [None] * self.groups if bias is None else bias.chunk(self.groups)
        return [F.conv2d(*group, padding=1) for group in zip(inputs, weights, biases, strict=True)]

    def normalize(self, maps: Tensor) -> Tensor:
        """Return the weights [B,N,h*w] of the pixels, which sum to 1, from IAM logits [B,N,h,w]; in
        at least float32.
        """
        logits = at_least_float32(maps.flatten(2))
        if self.normalization == "softmax":
            return logits.softmax(2)
        weights = logits.sigmoid()
        return weights / weights.sum(2, keepdim=True).clamp(min=1e-6)


class MaskBranch(nn.Module):
    """Mask features [B,E,h,w], which a kernel turns into the logits of a mask."""

    def __init__(self, inputs: int, *, width: int) -> None:
        super().__init__()
        self.convs = _convs(inputs, width)
        self.project = nn.Conv2d(width, KERNEL, 1)
        _init_conv(self.project)

    def forward(self, features: Tensor) -> Tensor:
        """Return [B,E,h,w] of [B,C,h,w]."""
        return self.project(self.convs(features))


class Decoder(nn.Module):
    """Both branches on features at stride 8 with their coordinates.

    Args:
        width: D, channels of the features and of the branches.
        classes: K.
        options: see InstanceBranch.
    """

    def __init__(self, width: int, classes: int, **options: Any) -> None:
        super().__init__()
        self.instances = InstanceBranch(width + 2, classes, width=width, **options)
        self.masks = MaskBranch(width + 2, width=width)

    def forward(self, features: Tensor) -> Outputs:
        """Return the outputs of all queries from [B,D,h,w] at stride 8; mask logits are upsampled
        by two, bilinearly.
        """
        grid = coordinates(features).expand(features.shape[0], -1, -1, -1)
        located = torch.cat(
            [part.contiguous(memory_format=torch.channels_last) for part in (grid, features)], 1
        )
        logits, kernels, objectness = self.instances(located)
        masks = (kernels @ self.masks(located).flatten(2)).unflatten(2, features.shape[2:])
        masks = F.interpolate(masks, scale_factor=2.0, mode="bilinear", align_corners=False)
        return Outputs(logits, masks, objectness)


def at_least_float32(values: Tensor) -> Tensor:
    """Return half precision as float32, other types unchanged."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def coordinates(features: Tensor) -> Tensor:
    """Return the positions (x, y) [1,2,h,w] of a map [B,C,h,w] in its type, from -1 to 1 along each
    axis; 0 along an axis of one cell.
    """
    axes = (_axis(cells, features.device) for cells in features.shape[2:])
    y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y])[None].to(features.dtype)


def _axis(cells: int, device: torch.device) -> Tensor:
    """Return positions float64 [cells], by arithmetic, as an exported torch.linspace keeps the
    number of cells it was traced with.
    """
    places = 2 * torch.arange(cells, dtype=torch.float64, device=device) - (cells - 1)
    return places / places[-1].clamp(min=1)


def _resize(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, like.shape[2:], mode="bilinear", align_corners=False)


def _convs(inputs: int, width: int) -> nn.Sequential:
    """Return DEPTH 3x3 convolutions, each followed by ReLU."""
    layers: list[nn.Module] = []
    for number in range(DEPTH):
        conv = nn.Conv2d(width if number else inputs, width, 3, padding=1)
        _init_conv(conv)
        layers += [conv, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _init_conv(conv: nn.Conv2d) -> None:
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(conv.get_parameter("bias"))
