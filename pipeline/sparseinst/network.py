"""SparseInst on a timm backbone (paper, figure 2): backbone, instance context encoder, decoder."""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.backbones import Backbone
from pipeline.classifiers.extraction import pad_to_multiple
from pipeline.sparseinst.decoder import Decoder, Outputs
from pipeline.sparseinst.encoder import Encoder

STRIDES = (8, 16, 32)
MULTIPLE = 32
"""Sides of pictures are padded to multiples of it, so that every level is exactly half as large as the one before."""
MASK_STRIDE = 4
"""Pixels of the padded picture a cell of the predicted masks spans."""


class TrainingOutputs(NamedTuple):
    """What the loss sees: the outputs, and logits [B,1+K,H/8,W/8] of background and classes, of networks that learn them beside."""

    outputs: Outputs
    semantic: Tensor | None


class Network(nn.Module):
    """SparseInst for K = `classes` classes.

    backbone, weights: see Backbone; width: D, channels of encoder and decoder; level: whether the backbone's maps are brought to mean 0
    and variance 1 first; semantic: whether a layer on the encoder's features learns the class of each cell beside, as in YOLACT
    (Bolya et al., ICCV 2019, section 3.4); options: of Decoder (queries, groups, linear, normalisation, kernel, depth).

    The published network does neither. Without levelling it begins with mask logits around 1 on a ResNet, but around 350 on
    EfficientNet-Lite0, whose maps are ten times as large, and then learns little in a few hundred steps. Without semantic the classes
    are learnt by way of the pooled features alone, long after the masks.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ("width", "queries", "groups", "normalisation", "level", "semantic")
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
            [nn.GroupNorm(1, channels) if level else nn.Identity() for channels in self.backbone.channels]
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
        """Outputs of pictures [B,3,H,W] in 0..255, any size; the masks span what `prepare` pads the pictures to.

        In training mode TrainingOutputs.
        """
        features = self.features(self.prepare(images))
        outputs: Outputs = self.decoder(features)
        if not self.training:
            return outputs
        return TrainingOutputs(outputs, None if self.semantic is None else self.semantic(features))

    def prepare(self, images: Tensor) -> Tensor:
        """Pictures [B,3,H,W] in 0..255 normalised, then padded with 0 at the right and the bottom to multiples of 32."""
        return pad_to_multiple(self.backbone.normalise(images), MULTIPLE)

    def predict(self, prepared: Tensor) -> Outputs:
        """Outputs of prepared pictures [B,3,H,W], with masks [B,N,H/4,W/4]."""
        outputs: Outputs = self.decoder(self.features(prepared))
        return outputs

    def features(self, prepared: Tensor) -> Tensor:
        """The encoder's features [B,D,H/8,W/8] of prepared pictures."""
        inputs = prepared.contiguous(memory_format=torch.channels_last)
        maps = zip(self.level, self.backbone(inputs), strict=True)
        encoded: Tensor = self.encoder([level(features) for level, features in maps])
        return encoded
