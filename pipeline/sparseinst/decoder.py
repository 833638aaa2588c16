"""The decoder: instance activation maps point out objects, kernels made of their features cut out masks (paper, section 3.3)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.sparseinst.winograd import Conv3x3

NORMALISATIONS = ("sigmoid", "softmax")
PRIOR = 0.01
"""Probability of every class, and activation of every pixel, before learning."""


class Outputs(NamedTuple):
    """What is predicted for N queries: class logits [B,N,K], mask logits [B,N,H/4,W/4], objectness logits [B,N]."""

    logits: Tensor
    masks: Tensor
    objectness: Tensor


class InstanceBranch(nn.Module):
    """Instance activation maps (IAM), features pooled under them, and what the features say: class, mask kernel, objectness.

    inputs: channels given; groups: maps of each query, every group from its own width / groups channels; linear: whether a layer
    joins the pooled features (the published "group" decoder, of any number of groups) or not (the "base" one, of one group);
    normalisation of the maps: sigmoid, as in the paper, or softmax over the pixels, where the maps have no bias, as a constant would
    change nothing. ValueError if groups or name do not fit.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        *,
        queries: int,
        groups: int,
        linear: bool,
        normalisation: str,
        width: int,
        kernel: int,
        depth: int,
    ) -> None:
        super().__init__()
        if normalisation not in NORMALISATIONS:
            raise ValueError(f"no normalisation {normalisation!r}: use one of {', '.join(NORMALISATIONS)}")
        if groups < 1 or width % groups:
            raise ValueError(
                f"{width} channels do not split into {groups} groups: use a number that divides them"
            )
        self.groups, self.normalisation = groups, normalisation
        self.convs = _convs(inputs, width, depth)
        bias = normalisation == "sigmoid"
        self.activation = nn.Conv2d(width, queries * groups, 3, padding=1, groups=groups, bias=bias)
        pooled = width * groups
        self.merge = nn.Sequential(nn.Linear(pooled, pooled), nn.ReLU()) if linear else nn.Identity()
        self.classes = nn.Linear(pooled, classes)
        self.kernels = nn.Linear(pooled, kernel)
        self.objectness = nn.Linear(pooled, 1)
        self._begin()

    def _begin(self) -> None:
        """Set the published initial weights; the objectness keeps PyTorch's."""
        for layer in (self.activation, self.classes, self.kernels):
            nn.init.normal_(layer.weight, std=0.01)
        for bias in (self.activation.bias, self.classes.bias):
            if bias is not None:
                nn.init.constant_(bias, -math.log((1 - PRIOR) / PRIOR))
        nn.init.zeros_(self.kernels.bias)
        for joining in self.merge.children():
            if isinstance(joining, nn.Linear):
                nn.init.kaiming_uniform_(joining.weight, a=1)
                nn.init.zeros_(joining.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits [B,N,K], kernels [B,N,E] and objectness logits [B,N] from [B,C,h,w]."""
        hidden = self.convs(features)
        pixels = hidden.flatten(2).transpose(1, 2)
        pooled = [self.normalised(maps) @ pixels for maps in self.activations(hidden)]
        merged = self.merge(torch.cat(pooled, 2))
        return self.classes(merged), self.kernels(merged), self.objectness(merged)[..., 0]

    def activations(self, hidden: Tensor) -> list[Tensor]:
        """IAM logits [B,N,h,w] of each group from the features [B,D,h,w] behind `convs`.

        One convolution a group: a grouped one takes twice as long on a CPU.
        """
        given, weights = hidden.chunk(self.groups, 1), self.activation.weight.chunk(self.groups)
        bias = self.activation.bias
        biases = [None] * self.groups if bias is None else bias.chunk(self.groups)
        return [F.conv2d(*part, padding=1) for part in zip(given, weights, biases, strict=True)]

    def normalised(self, maps: Tensor) -> Tensor:
        """IAM logits [B,N,h,w] to weights [B,N,h*w] of the pixels that sum to 1, in at least float32."""
        logits = maps.flatten(2).to(torch.promote_types(maps.dtype, torch.float32))
        if self.normalisation == "softmax":
            return logits.softmax(2)
        weights = logits.sigmoid()
        return weights / weights.sum(2, keepdim=True).clamp(min=1e-6)


class MaskBranch(nn.Module):
    """Mask features [B,E,h,w], which a kernel turns into the logits of a mask."""

    def __init__(self, inputs: int, *, width: int, kernel: int, depth: int) -> None:
        super().__init__()
        self.convs = _convs(inputs, width, depth)
        self.project = nn.Conv2d(width, kernel, 1)
        _begin_conv(self.project)

    def forward(self, features: Tensor) -> Tensor:
        """[B,C,h,w] to [B,E,h,w]."""
        return self.project(self.convs(features))


class Decoder(nn.Module):
    """Both branches on features at stride 8 with their coordinates.

    inputs: D, channels given; classes: K; queries: N; kernel: E; depth: 3x3 convolutions a branch; the others see InstanceBranch.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        *,
        queries: int = 100,
        groups: int = 4,
        linear: bool = True,
        normalisation: str = "sigmoid",
        width: int = 256,
        kernel: int = 128,
        depth: int = 4,
    ) -> None:
        super().__init__()
        self.instances = InstanceBranch(
            inputs + 2,
            classes,
            queries=queries,
            groups=groups,
            linear=linear,
            normalisation=normalisation,
            width=width,
            kernel=kernel,
            depth=depth,
        )
        self.masks = MaskBranch(inputs + 2, width=width, kernel=kernel, depth=depth)

    def forward(self, features: Tensor) -> Outputs:
        """[B,D,h,w] at stride 8 to the outputs of all queries; mask logits are enlarged twice, bilinearly."""
        places = coordinates(features).expand(features.shape[0], -1, -1, -1)
        located = torch.cat(
            [part.contiguous(memory_format=torch.channels_last) for part in (places, features)], 1
        )
        logits, kernels, objectness = self.instances(located)
        masks = (kernels @ self.masks(located).flatten(2)).unflatten(2, features.shape[2:])
        masks = F.interpolate(masks, scale_factor=2.0, mode="bilinear", align_corners=False)
        return Outputs(logits, masks, objectness)


def coordinates(features: Tensor) -> Tensor:
    """Positions (x, y) [1,2,h,w] of a map [B,C,h,w] in its type, from -1 to 1 along each axis; 0 where that has one cell."""
    y, x = torch.meshgrid(*(_axis(cells, features.device) for cells in features.shape[2:]), indexing="ij")
    return torch.stack([x, y])[None].to(features.dtype)


def _axis(cells: int, device: torch.device) -> Tensor:
    """Positions float64 [cells]; by arithmetic, as torch.linspace keeps the number of cells it was exported with."""
    places = 2 * torch.arange(cells, dtype=torch.float64, device=device) - (cells - 1)
    return places / places[-1].clamp(min=1)


def _convs(inputs: int, width: int, depth: int) -> nn.Sequential:
    """3x3 convolutions, each rectified."""
    layers: list[nn.Module] = []
    for number in range(depth):
        conv = Conv3x3(width if number else inputs, width)
        _begin_conv(conv)
        layers += [conv, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _begin_conv(conv: nn.Conv2d) -> None:
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(conv.get_parameter("bias"))
