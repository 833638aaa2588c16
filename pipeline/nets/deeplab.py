"""The final semantic model, DeepLabV3+ (Chen et al., ECCV 2018): network, training crops, loss, and
multi-scale prediction.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.core.artifacts import IGNORE
from pipeline.data.augmentation import Crops
from pipeline.nets.backbones import (
    OUTPUT_STRIDE,
    Backbone,
    micro_batches,
    pad_to_multiple,
    resize_by,
)

if TYPE_CHECKING:
    from pipeline.core.trainer import TrainState

FINE = 4
"""Stride of the features that the decoder adds to the coarsest."""
WIDTH = 256
"""Channels of the decoder."""


class SemanticNet(nn.Module):
    """DeepLabV3+ at output stride 16: segmentation-models-pytorch's decoder on a timm backbone.

    Args:
        labels: Number of labels, background included.
        backbone, weights: Network of the features and its weights, see Backbone.
    """

    def __init__(self, labels: int, backbone: str, weights: str = "none") -> None:
        super().__init__()
        self.backbone = Backbone(backbone, weights, dilated=True)
        channels, reductions = self.backbone.channels, self.backbone.reductions
        self.fine = max(n for n, stride in enumerate(reductions) if stride <= FINE)
        self.decoder = DeepLabV3PlusDecoder(
            encoder_channels=(0, 0, channels[self.fine], channels[-1]),
            encoder_depth=5,
            out_channels=WIDTH,
            atrous_rates=(12, 24, 36),
            output_stride=OUTPUT_STRIDE,
            aspp_separable=True,
            aspp_dropout=0.5,
        )
        self.head = SegmentationHead(WIDTH, labels, kernel_size=1, upsampling=FINE)
        self.to(memory_format=torch.channels_last)

    def new_parameters(self) -> list[nn.Parameter]:
        """Return the parameters without pretrained values: decoder and head."""
        return [*self.decoder.parameters(), *self.head.parameters()]

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B,L,H,W] of images [B,3,H,W] in 0..255 of any size."""
        height, width = images.shape[2:]
        maps = self.backbone(pad_to_multiple(self.backbone.normalize(images), OUTPUT_STRIDE))
        # the decoder takes the third map and the last
        logits = self.head(self.decoder([images, images, maps[self.fine], maps[-1]]))
        return logits[:, :, :height, :width]


@dataclass(eq=False)
class LabeledCrops(Crops):
    """Crops uint8 [3,S,S] with label maps uint8 [S,S].

    Attributes:
        labels: Returns the label map uint8 [H,W] of an id; IGNORE marks unlabeled pixels.
    """

    labels: Callable[[str], np.ndarray]

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        name = self.names[number]
        image, labels, weights = self.augmented(name, self.labels(name)[None])
        return image, labels[0], *weights


def segmentation_loss(
    network: nn.Module, batch: tuple[Tensor, ...], step: "TrainState"
) -> Mapping[str, Tensor]:
    """Return the mean cross-entropy over the labeled pixels of the batch on all ranks, each by its
    weight if there are any; 0 without a pixel.
    """
    images, labels, *weights = batch
    logits, known = network(images).float(), labels != IGNORE
    options: dict[str, Any] = {"ignore_index": IGNORE, "reduction": "none" if weights else "sum"}
    total = F.cross_entropy(logits, labels.long(), **options)
    for weight in weights:
        total, known = (total * weight).sum(), known * weight
    count = step.ranks.mean(known.sum().float())
    return {"loss": total / count.clamp(min=1)}


@torch.inference_mode()
def probabilities(
    network: SemanticNet, images: Tensor, scales: Sequence[float], flip: bool
) -> Tensor:
    """Return class probabilities [B,L,H,W] of images [B,3,H,W] in 0..255, averaged over `scales`
    and, with `flip`, over the horizontally flipped images.
    """
    height, width = images.shape[2:]
    total = torch.zeros((), device=images.device)
    for scale in scales:
        scaled = resize_by(images.float(), scale)
        for flipped in (False, True) if flip else (False,):
            inputs = scaled.flip(3) if flipped else scaled
            logits = torch.cat([network(part) for part in micro_batches(inputs)]).float()
            logits = logits.flip(3) if flipped else logits
            total = total + F.interpolate(
                logits, (height, width), mode="bilinear", align_corners=False
            ).softmax(1)
    return total / total.sum(1, keepdim=True)
