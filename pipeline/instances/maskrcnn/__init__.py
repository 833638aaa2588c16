"""Mask R-CNN (He et al., ICCV 2017), the final instance model of IRNet's paper.

torchvision's implementation with a feature pyramid (Lin et al., CVPR 2017), on any timm backbone.
Its losses are torchvision's, with equal weights; ignored pixels are background here, as the method
has no others, and pixels weigh the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, masks_to_boxes
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from pipeline.core.artifacts import IGNORE
from pipeline.core.trainer import LossFn, TrainState
from pipeline.instances.base import Detections, InstanceModel, resize_to_sides
from pipeline.nets.backbones import Backbone, normalization

STRIDES = (4, 8, 16, 32)
MASK_LAYERS = 4
"""Layers of the mask head, as in the paper."""
MASK_THRESHOLD = 0.5
"""Probability above which a pixel belongs to a mask, as in the paper."""


class MaskRCNN(InstanceModel):
    """Mask R-CNN for K = `classes` classes.

    Args:
        classes: K, without background.
        backbone: name of the timm backbone.
        weights: see Backbone.
        channels: of the pyramid's levels and of the mask head's layers (256 in the paper). The mask
            head is most of a training step's work.
        proposals: per image, from which the heads learn in a step, a quarter of them on objects
            (512 in the feature pyramids' paper).
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
        self.net = TorchvisionMaskRCNN(
            PyramidBackbone(Backbone(backbone, weights, STRIDES), channels),
            classes + 1,
            box_batch_size_per_image=proposals,
            mask_head=MaskRCNNHeads(channels, (channels,) * MASK_LAYERS, dilation=1),
        )
        self.net.roi_heads.mask_predictor = MaskRCNNPredictor(channels, channels, classes + 1)
        self.net.transform = UnresizedTransform(list(mean), list(std))
        self.net.rpn.box_coder = ExactBoxCoder((1.0, 1.0, 1.0, 1.0))
        self.net.roi_heads.box_coder = ExactBoxCoder((10.0, 10.0, 5.0, 5.0))

    @property
    def backbone(self) -> Backbone:
        """The part with pretrained weights."""
        return self.net.backbone.body

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Return the losses by name of images [B,3,H,W] in 0..255 with torchvision's targets;
        without targets, torchvision's detections.
        """
        return self.net(list(images.float() / 255), targets)

    @staticmethod
    def loss_fn() -> LossFn:
        """Return `training_loss`, which has no options."""
        return training_loss

    @torch.inference_mode()
    def predict(
        self, images: Sequence[Tensor] | Tensor, *, score: float, sides: Sequence[int] | None = None
    ) -> list[Detections]:
        """Detect instances, the highest score first; see InstanceModel. torchvision itself drops
        scores below 0.05.
        """
        detections: list[Detections] = []
        for image in images:
            (raw,) = self(resize_to_sides(image[None], sides))
            detections.append(_at_size(raw, image.shape[1:], score))
        return detections


class UnresizedTransform(GeneralizedRCNNTransform):
    """torchvision's normalization and batching of images, without its resizing to at least 800
    pixels.
    """

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__(min_size=1, max_size=1, image_mean=mean, image_std=std)

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return an image [3,H,W] and its target unchanged."""
        return image, target


class ExactBoxCoder(BoxCoder):
    """torchvision's boxes from what the heads say, in float32: bfloat16 knows no odd number beyond
    256.
    """

    def decode(self, rel_codes: Tensor, boxes: list[Tensor]) -> Tensor:
        """Return the boxes [N,C,4] that codes [N,4C] make of boxes."""
        return super().decode(rel_codes.float(), boxes)


class PyramidBackbone(nn.Module):
    """A feature pyramid over a backbone's normalized features, as torchvision's detectors expect
    it.
    """

    def __init__(self, body: Backbone, channels: int) -> None:
        super().__init__()
        self.body, self.out_channels = body, channels
        self.pyramid = FeaturePyramidNetwork(body.channels, channels, LastLevelMaxPool())

    def forward(self, normalized: Tensor) -> Mapping[str, Tensor]:
        """Return the levels at strides 4 to 64 of normalized images [B,3,H,W], in float32, whose
        type the anchors take.
        """
        features = self.body(normalized.contiguous(memory_format=torch.channels_last))
        levels = self.pyramid(dict(zip("0123", features, strict=True)))
        return {name: level.float() for name, level in levels.items()}


def training_loss(
    network: nn.Module, batch: Sequence[Tensor], step: TrainState
) -> Mapping[str, Tensor]:
    """Return torchvision's loss terms of a batch of InstanceCrops, and their sum as `loss`."""
    images, ids, classes, *_ = batch
    targets = [target_of(*sample) for sample in zip(ids, classes, strict=True)]
    losses = network(images, targets)
    terms = {name.removeprefix("loss_"): value.float() for name, value in losses.items()}
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}


def target_of(ids: Tensor, classes: Tensor) -> dict[str, Tensor]:
    """Return torchvision's target of one crop; instances without a pixel in it are left out.

    Args:
        ids: uint8 [S,S], 0 none, m + 1 the instance of classes[m].
        classes: uint8 [M], IGNORE for none.

    Returns:
        boxes f4 [N,4] (x0, y0, x1, y1), labels int64 [N] from 1, masks uint8 [N,S,S].
    """
    slots = (classes != IGNORE).nonzero()[:, 0]
    masks = ids == (slots + 1).to(ids.dtype)[:, None, None]
    seen = masks.flatten(1).any(1)
    masks, slots = masks[seen], slots[seen]
    boxes = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1], device=ids.device)
    return {
        "boxes": boxes.float(),
        "labels": classes[slots].long() + 1,
        "masks": masks.to(torch.uint8),
    }


def _at_size(raw: dict[str, Tensor], size: Sequence[int], score: float) -> Detections:
    """Return the detections of an image of `size` (H,W) from torchvision's, whose masks [N,1,h,w]
    have the size that the network saw; empty masks are left out.
    """
    kept = raw["scores"] >= score
    probabilities = F.interpolate(
        raw["masks"][kept].float(), tuple(size), mode="bilinear", align_corners=False
    )
    masks = probabilities[:, 0] > MASK_THRESHOLD
    found = masks.flatten(1).any(1)
    return Detections(
        masks[found], raw["labels"][kept][found] - 1, raw["scores"][kept][found].float()
    )
