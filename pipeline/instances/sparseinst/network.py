"""SparseInst on a timm backbone (paper, figure 2): backbone, instance context encoder, decoder.

The instance context encoder: a feature pyramid with pooled context, fused into one map at stride 8
(paper, section 3.2).

The decoder: instance activation maps point out objects, kernels made of their features cut out
masks (paper, section 3.3).
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.instances.sparseinst.winograd import Conv3x3
from pipeline.nets.backbones import Backbone, pad_to_multiple

BINS = (1, 2, 3, 6)
"""Cells a side that the coarsest features are pooled to."""


class PyramidPooling(nn.Module):
    """Context of the coarsest features from averages over 1, 2², 3² and 6² cells (Zhao et al., CVPR
    2017).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pools = nn.ModuleList([nn.AdaptiveAvgPool2d(bins) for bins in BINS])
        self.branches = nn.ModuleList([nn.Conv2d(width, width // 4, 1) for _ in BINS])
        self.merge = nn.Conv2d(width // 4 * len(BINS) + width, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """[B,D,h,w] to [B,D,h,w], not negative."""
        pooled = [
            branch(pool(features)).relu()
            for branch, pool in zip(self.branches, self.pools, strict=True)
        ]
        spread = [_resize(part, features) for part in pooled]
        return self.merge(torch.cat([*spread, features], 1)).relu()


class Encoder(nn.Module):
    """Features at strides 8, 16 and 32 to one map at stride 8.

    channels: of the three maps, fine to coarse; width: D, channels of the result. Layers are listed
    from coarse to fine.
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
        """Maps [B,C,h,w], [B,C',h/2,w/2] and [B,C'',h/4,w/4] to [B,D,h,w]; h and w must divide by
        4.
        """
        sums: list[Tensor] = []
        for lateral, given in zip(self.laterals, reversed(features), strict=True):
            mapped = lateral(given)
            sums.append(
                mapped + F.interpolate(sums[-1], scale_factor=2.0) if sums else self.pooling(mapped)
            )
        levels = [output(part) for output, part in zip(self.outputs, sums, strict=True)]
        return self._fused(levels[::-1])

    def _fused(self, levels: Sequence[Tensor]) -> Tensor:
        """The 1x1 convolution of all levels resized to the finest and concatenated.

        Convolving each level where it is and resizing afterwards is the same, as neither mixes what
        the other does, and cheaper.
        """
        finest, *coarser = levels
        weights = self.fuse.weight.chunk(len(levels), 1)
        fused = F.conv2d(finest, weights[0], self.fuse.bias)
        for level, weight in zip(coarser, weights[1:], strict=True):
            fused = fused + _resize(F.conv2d(level, weight), finest)
        return fused


def _resize(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, like.shape[2:], mode="bilinear", align_corners=False)


NORMALIZATIONS = ("sigmoid", "softmax")
PRIOR = 0.01
"""Probability of every class, and activation of every pixel, before learning."""


class Outputs(NamedTuple):
    """What is predicted for N queries: class logits [B,N,K], mask logits [B,N,H/4,W/4], objectness
    logits [B,N].
    """

    logits: Tensor
    masks: Tensor
    objectness: Tensor


class InstanceBranch(nn.Module):
    """Instance activation maps (IAM), features pooled under them, and what the features say: class,
    mask kernel, objectness.

    inputs: channels given; groups: maps of each query, every group from its own width / groups
    channels; linear: whether a layer joins the pooled features (the published "group" decoder, of
    any number of groups) or not (the "base" one, of one group); normalization of the maps: sigmoid,
    as in the paper, or softmax over the pixels, where the maps have no bias, as a constant would
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
        normalization: str,
        width: int,
        kernel: int,
        depth: int,
    ) -> None:
        super().__init__()
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"no normalization {normalization!r}: use one of {', '.join(NORMALIZATIONS)}"
            )
        if groups < 1 or width % groups:
            raise ValueError(
                f"{width} channels do not split into {groups} groups: use a number that divides them"
            )
        self.groups, self.normalization = groups, normalization
        self.convs = _convs(inputs, width, depth)
        bias = normalization == "sigmoid"
        self.activation = nn.Conv2d(width, queries * groups, 3, padding=1, groups=groups, bias=bias)
        pooled = width * groups
        self.merge = (
            nn.Sequential(nn.Linear(pooled, pooled), nn.ReLU()) if linear else nn.Identity()
        )
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
        pooled = [self.normalized(maps) @ pixels for maps in self.activations(hidden)]
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

    def normalized(self, maps: Tensor) -> Tensor:
        """IAM logits [B,N,h,w] to weights [B,N,h*w] of the pixels that sum to 1, in at least
        float32.
        """
        logits = maps.flatten(2).to(torch.promote_types(maps.dtype, torch.float32))
        if self.normalization == "softmax":
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

    inputs: D, channels given; classes: K; queries: N; kernel: E; depth: 3x3 convolutions a branch;
    the others see InstanceBranch.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        *,
        queries: int = 100,
        groups: int = 4,
        linear: bool = True,
        normalization: str = "sigmoid",
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
            normalization=normalization,
            width=width,
            kernel=kernel,
            depth=depth,
        )
        self.masks = MaskBranch(inputs + 2, width=width, kernel=kernel, depth=depth)

    def forward(self, features: Tensor) -> Outputs:
        """[B,D,h,w] at stride 8 to the outputs of all queries; mask logits are enlarged twice,
        bilinearly.
        """
        places = coordinates(features).expand(features.shape[0], -1, -1, -1)
        located = torch.cat(
            [part.contiguous(memory_format=torch.channels_last) for part in (places, features)], 1
        )
        logits, kernels, objectness = self.instances(located)
        masks = (kernels @ self.masks(located).flatten(2)).unflatten(2, features.shape[2:])
        masks = F.interpolate(masks, scale_factor=2.0, mode="bilinear", align_corners=False)
        return Outputs(logits, masks, objectness)


def coordinates(features: Tensor) -> Tensor:
    """Positions (x, y) [1,2,h,w] of a map [B,C,h,w] in its type, from -1 to 1 along each axis; 0
    where that has one cell.
    """
    y, x = torch.meshgrid(
        *(_axis(cells, features.device) for cells in features.shape[2:]), indexing="ij"
    )
    return torch.stack([x, y])[None].to(features.dtype)


def _axis(cells: int, device: torch.device) -> Tensor:
    """Positions float64 [cells]; by arithmetic, as torch.linspace keeps the number of cells it was
    exported with.
    """
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


STRIDES = (8, 16, 32)
MULTIPLE = 32
"""Sides of images are padded to multiples of it, so that every level is exactly half as large as
the one before.
"""
MASK_STRIDE = 4
"""Pixels of the padded image a cell of the predicted masks spans."""


class TrainingOutputs(NamedTuple):
    """What the loss sees: the outputs, and logits [B,1+K,H/8,W/8] of background and classes, of
    networks that learn them beside.
    """

    outputs: Outputs
    semantic: Tensor | None


class Network(nn.Module):
    """SparseInst for K = `classes` classes.

    backbone, weights: see Backbone; width: D, channels of encoder and decoder; level: whether the
    backbone's maps are brought to mean 0 and variance 1 first; semantic: whether a layer on the
    encoder's features learns the class of each cell beside, as in YOLACT (Bolya et al., ICCV 2019,
    section 3.4); options: of Decoder (queries, groups, linear, normalization, kernel, depth).

    The published network does neither. Without levelling it begins with mask logits around 1 on a
    ResNet, but around 350 on EfficientNet-Lite0, whose maps are ten times as large, and then learns
    little in a few hundred steps. Without semantic the classes are learned by way of the pooled
    features alone, long after the masks.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = (
        "width",
        "queries",
        "groups",
        "normalization",
        "level",
        "semantic",
    )
    """Parameters of the method that shape the network; they are stored with its weights."""

    def __init__(
        self,
        classes: int,
        backbone: str,
        weights: str = "none",
        *,
        width: int = 256,
        level: bool = False,
        semantic: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, weights, STRIDES)
        self.level = nn.ModuleList(
            [
                nn.GroupNorm(1, channels) if level else nn.Identity()
                for channels in self.backbone.channels
            ]
        )
        self.encoder = Encoder(self.backbone.channels, width)
        self.decoder = Decoder(width, classes, width=width, **options)
        self.semantic = nn.Conv2d(width, 1 + classes, 1) if semantic else None
        self.to(memory_format=torch.channels_last)

    def new_parameters(self) -> list[nn.Parameter]:
        """Parameters without pretrained values: all but the backbone's."""
        backbone = {id(parameter) for parameter in self.backbone.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in backbone]

    def forward(self, images: Tensor) -> Outputs | TrainingOutputs:
        """Outputs of images [B,3,H,W] in 0..255, any size; the masks span what `prepare` pads the
        images to.

        In training mode TrainingOutputs.
        """
        features = self.features(self.prepare(images))
        outputs: Outputs = self.decoder(features)
        if not self.training:
            return outputs
        return TrainingOutputs(outputs, None if self.semantic is None else self.semantic(features))

    def prepare(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] in 0..255 normalized, then padded with 0 at the right and the bottom to
        multiples of 32.
        """
        return pad_to_multiple(self.backbone.normalize(images), MULTIPLE)

    def predict(self, prepared: Tensor) -> Outputs:
        """Outputs of prepared images [B,3,H,W], with masks [B,N,H/4,W/4]."""
        outputs: Outputs = self.decoder(self.features(prepared))
        return outputs

    def features(self, prepared: Tensor) -> Tensor:
        """The encoder's features [B,D,H/8,W/8] of prepared images."""
        inputs = prepared.contiguous(memory_format=torch.channels_last)
        maps = zip(self.level, self.backbone(inputs), strict=True)
        encoded: Tensor = self.encoder([level(features) for level, features in maps])
        return encoded
