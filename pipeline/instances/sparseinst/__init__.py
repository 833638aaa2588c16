"""SparseInst (Cheng et al., CVPR 2022): instances as sparse activation maps, one mask per query,
without boxes and without NMS.

The model is here; its layers are in `network`, its training loss in `losses`, and the way from
outputs to instances in `predict`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.core.trainer import LossFn
from pipeline.instances.base import Detections, InstanceModel, resize_to_sides
from pipeline.instances.sparseinst.losses import Weights, training_loss
from pipeline.instances.sparseinst.network import MULTIPLE, STRIDES, Decoder, Encoder, Outputs
from pipeline.instances.sparseinst.predict import detections
from pipeline.nets.backbones import Backbone, micro_batches, pad_to_multiple


class TrainingOutputs(NamedTuple):
    """What the loss takes: the outputs, and logits [B,1+K,H/8,W/8] of background and classes, or
    None for networks without them.
    """

    outputs: Outputs
    semantic: Tensor | None


class SparseInst(InstanceModel):
    """SparseInst for K = `classes` classes.

    The published network has neither `level` nor `semantic`. Without `level`, initial mask logits
    are about 1 on a ResNet but about 350 on EfficientNet-Lite0, whose maps are ten times as large,
    which then learns little in a few hundred steps. Without `semantic`, classes are learned only
    through the pooled features, long after the masks.

    Args:
        classes: K, without background.
        backbone: name of the timm backbone, which must have maps at strides 8, 16 and 32.
        weights: see Backbone.
        width: D, channels of encoder and decoder (256 in the paper).
        queries, groups, normalization: see InstanceBranch.
        level: whether the backbone's maps are normalized to mean 0 and variance 1 first.
        semantic: whether a layer on the encoder's features learns the class of each cell as well,
            in training alone (YOLACT, Bolya et al., ICCV 2019, section 3.4).
    """

    OPTIONS: ClassVar[tuple[str, ...]] = (
        "width",
        "queries",
        "groups",
        "normalization",
        "level",
        "semantic",
    )

    def __init__(
        self,
        classes: int,
        backbone: str,
        weights: str = "none",
        *,
        width: int = 256,
        queries: int = 100,
        groups: int = 4,
        normalization: str = "sigmoid",
        level: bool = False,
        semantic: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, weights, STRIDES)
        channels = self.backbone.channels
        self.level = nn.ModuleList(
            [nn.GroupNorm(1, number) if level else nn.Identity() for number in channels]
        )
        self.encoder = Encoder(channels, width)
        self.decoder = Decoder(
            width,
            classes,
            queries=queries,
            groups=groups,
            normalization=normalization,
            width=width,
        )
        self.semantic = nn.Conv2d(width, 1 + classes, 1) if semantic else None
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Outputs | TrainingOutputs:
        """Return Outputs, in training mode TrainingOutputs, of images [B,3,H,W] in 0..255 of any
        size; the masks span the images as `prepare` pads them.
        """
        features = self.encode(self.prepare(images))
        outputs: Outputs = self.decoder(features)
        if not self.training:
            return outputs
        return TrainingOutputs(outputs, None if self.semantic is None else self.semantic(features))

    def prepare(self, images: Tensor) -> Tensor:
        """Normalize images [B,3,H,W] in 0..255, then pad them with 0 at the right and bottom to
        multiples of 32.
        """
        return pad_to_multiple(self.backbone.normalize(images), MULTIPLE)

    def encode(self, prepared: Tensor) -> Tensor:
        """Return the encoder's features [B,D,H/8,W/8] of prepared images [B,3,H,W]."""
        inputs = prepared.contiguous(memory_format=torch.channels_last)
        maps = zip(self.level, self.backbone(inputs), strict=True)
        encoded: Tensor = self.encoder([level(features) for level, features in maps])
        return encoded

    def decode(self, prepared: Tensor) -> Outputs:
        """Return the outputs of prepared images [B,3,H,W], with masks [B,N,H/4,W/4]."""
        outputs: Outputs = self.decoder(self.encode(prepared))
        return outputs

    @staticmethod
    def loss_fn(*, loss: Mapping[str, float], targets: str, weighted: bool) -> LossFn:
        """Return the training loss.

        Args:
            loss: weights of the terms, see Weights.
            targets: how masks are brought to stride 4: `area` or `bilinear`, see `targets_of`.
            weighted: whether instances count by their weights.
        """
        return partial(training_loss, weights=Weights(**loss), resizing=targets, weighted=weighted)

    @torch.inference_mode()
    def predict(
        self, images: Sequence[Tensor] | Tensor, *, score: float, sides: Sequence[int] | None = None
    ) -> list[Detections]:
        """Detect instances, in the order of their queries; see InstanceModel. Images padded to one
        size go through the network together.
        """
        resized = [resize_to_sides(image[None], sides) for image in images]
        prepared = [self.prepare(image) for image in resized]
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, image in enumerate(prepared):
            groups[tuple(image.shape)].append(number)
        found: dict[int, Detections] = {}
        for numbers in groups.values():
            batches = micro_batches(torch.cat([prepared[number] for number in numbers]))
            parts = [self.decode(batch) for batch in batches]
            joined = Outputs(*map(torch.cat, zip(*parts, strict=True)))
            for number, *outputs in zip(numbers, *joined, strict=True):
                inner, size = resized[number].shape[2:], images[number].shape[1:]
                found[number] = detections(Outputs(*outputs), inner, size, score)
        return [found[number] for number in range(len(images))]
