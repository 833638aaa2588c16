"""Mask R-CNN's losses, as torchvision computes them: proposals, classes, boxes and masks, with
equal weights.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.ops import masks_to_boxes

from pipeline.core.artifacts import IGNORE
from pipeline.core.trainer import LossFn, Step


def objective() -> LossFn:
    """The losses of a batch of InstanceCrops; pixels that do not count are background here, as the
    method knows no others.
    """

    def losses(network: nn.Module, batch: tuple[Tensor, ...], step: Step) -> Mapping[str, Tensor]:
        """`loss`, the sum, and torchvision's terms without their prefix."""
        images, ids, classes, _ = batch
        found = network(images, [target(*image) for image in zip(ids, classes, strict=True)])
        terms = {name.removeprefix("loss_"): value.float() for name, value in found.items()}
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    return losses


def target(ids: Tensor, classes: Tensor) -> dict[str, Tensor]:
    """torchvision's target of one crop: boxes f4 [N,4] (x0, y0, x1, y1), labels int64 [N] from 1
    on, masks uint8 [N,S,S].

    ids: uint8 [S,S], 0 none, m + 1 the instance of classes[m]; classes: uint8 [M], IGNORE for none.
    Instances without a pixel in the crop are left out.
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
