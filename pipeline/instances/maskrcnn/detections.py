"""What Mask R-CNN finds in images."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.instances.base import Detections, resized
from pipeline.instances.maskrcnn.network import Network

MASK = 0.5
"""Probability above which a pixel belongs to a mask, as in the paper."""


@torch.inference_mode()
def detect(
    network: Network, images: Sequence[Tensor], *, score: float, sides: Sequence[int] | None = None
) -> list[Detections]:
    """Instances of images [3,H,W] in 0..255 of any sizes, each as if it were alone, the surest
    first.

    score: that instances have at least (torchvision's own limit is 0.05); sides: shorter and
    longest side in pixels at which the network sees an image; None for its own.
    """
    found: list[Detections] = []
    for image in images:
        given = image[None] if sides is None else resized(image[None], sides)
        (one,) = network(given)
        found.append(_at_size(one, image.shape[1:], score))
    return found


def _at_size(one: dict[str, Tensor], size: Sequence[int], score: float) -> Detections:
    """One image's detections at the size (H,W) of the image, from masks [N,1,h,w] at the size that
    the network saw.
    """
    kept = one["scores"] >= score
    probabilities = F.interpolate(
        one["masks"][kept].float(), tuple(size), mode="bilinear", align_corners=False
    )
    masks = probabilities[:, 0] > MASK
    there = masks.flatten(1).any(1)
    return Detections(
        masks[there], one["labels"][kept][there] - 1, one["scores"][kept][there].float()
    )
