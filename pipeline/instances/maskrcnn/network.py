"""torchvision's Mask R-CNN with a feature pyramid (Lin et al., CVPR 2017) on a timm backbone."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from pipeline.nets.backbones import Backbone, normalization

STRIDES = (4, 8, 16, 32)
MASK_LAYERS = 4
"""Layers of the mask head, as in the paper."""


class Network(nn.Module):
    """Mask R-CNN for K = `classes` classes; backbone, weights: see Backbone.

    channels: of the pyramid's levels and of the mask head's layers (256 in the paper); proposals:
    of an image that the heads learn from in a step, a quarter of them on objects (512 in the paper
    of feature pyramids). The mask head is most of a step's work.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ("channels", "proposals")

    def __init__(
        self,
        classes: int,
        backbone: str,
        weights: str = "none",
        *,
        channels: int,
        proposals: int = 512,
    ) -> None:
        super().__init__()
        mean, std = normalization(backbone)
        self.net = MaskRCNN(
            Levels(Backbone(backbone, weights, STRIDES), channels),
            classes + 1,
            image_mean=list(mean),
            image_std=list(std),
            box_batch_size_per_image=proposals,
            mask_head=MaskRCNNHeads(channels, (channels,) * MASK_LAYERS, dilation=1),
        )
        self.net.roi_heads.mask_predictor = MaskRCNNPredictor(channels, channels, classes + 1)
        self.net.transform = AsGiven(list(mean), list(std))

    @property
    def backbone(self) -> Backbone:
        """The part with pretrained weights."""
        return self.net.backbone.body

    def new_parameters(self) -> list[nn.Parameter]:
        """Parameters without pretrained values: all but the backbone's."""
        pretrained = {*self.backbone.parameters()}
        return [parameter for parameter in self.parameters() if parameter not in pretrained]

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Losses by name of training crops uint8 [B,3,S,S] with torchvision's targets; without
        targets, its detections.
        """
        return self.net(list(images.float() / 255), targets)


class AsGiven(GeneralizedRCNNTransform):
    """torchvision's normalization and batching of images without its resizing: to at least 800
    pixels, however it was trained.
    """

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__(min_size=1, max_size=1, image_mean=mean, image_std=std)

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """An image [3,H,W] and its target as they are."""
        return image, target


class Levels(nn.Module):
    """The pyramid over a backbone's normalized features, as torchvision's detectors want it."""

    def __init__(self, body: Backbone, channels: int) -> None:
        super().__init__()
        self.body, self.out_channels = body, channels
        self.pyramid = FeaturePyramidNetwork(body.channels, channels, LastLevelMaxPool())

    def forward(self, normalized: Tensor) -> Mapping[str, Tensor]:
        """Normalized images [B,3,H,W] to levels at strides 4 to 64."""
        features = self.body(normalized.contiguous(memory_format=torch.channels_last))
        return self.pyramid(dict(zip("0123", features, strict=True)))
