"""Teaching class maps by label maps, the learning half of CPM (paper, section 3.3).

    S^c = ReLU(A^c) / max A^c for the classes present,   S^0 = 1 - max_c S^c,   loss = -ln softmax([S^0, S])[label]

The scores are the logits, as published: near to linear in a bounded score, so a wrong mask pulls no
harder than a right one, where -ln S^c would pull hardest at pixels without any response. The
gradient goes through the maximum too: the loss does not depend on the scale of a map, and cannot
raise or lower the class's logit merely to please the masks.

Differences from the published code: absent classes are no competitors (there they hold most of the
softmax, for every class the data set has more); a map that reaches less than FLOOR is divided by
that; every image weighs the same.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.core.artifacts import IGNORE
from pipeline.core.device import to_device, to_numpy

FLOOR = 1.0
"""Least divisor of a map, in logits: a faint map, of a class that the crop cut off say, is not
blown up, nor is its gradient.
"""


def map_loss(maps: Tensor, tags: Tensor, labels: Tensor, inside: Tensor) -> Tensor:
    """Mean over the images of the mean cross-entropy over their labeled pixels; 0 for an image
    without any.

    maps: A [B,C,h,w]; tags: 0/1 [B,C]; labels: uint8 [B,S,S], 0 background, c + 1 a present class
    c, IGNORE; inside: bool [B,S,S], where the crops show the image: maxima outside do not count.
    """
    labeled = (labels != IGNORE).flatten(1).any(1)
    # an image without labeled pixels learns nothing of any class
    (learned,) = to_numpy([(tags > 0) & labeled[:, None]])
    classes = to_device([own.nonzero()[0] for own in learned], np.int64, maps.device)
    images = zip(maps, classes, labels, inside, strict=True)
    return torch.stack([_image(*image) for image in images]).mean()


def _image(maps: Tensor, present: Tensor, labels: Tensor, inside: Tensor) -> Tensor:
    """The loss of one image, of the present classes [K]; 0 without any."""
    if not len(present):
        return maps.new_zeros(())
    places = torch.full((IGNORE + 1,), IGNORE, device=labels.device)
    places[0] = 0
    places[present + 1] = torch.arange(1, len(present) + 1, device=labels.device)
    scores = normalized(maps[present], inside)
    at_pixels = F.interpolate(scores[None], labels.shape, mode="bilinear", align_corners=False)[0]
    logits = torch.cat([1 - at_pixels.amax(0, keepdim=True), at_pixels])
    return F.cross_entropy(logits[None], places[labels.long()][None], ignore_index=IGNORE)


def normalized(maps: Tensor, inside: Tensor) -> Tensor:
    """ReLU(A) [K,h,w] over the maximum of each map among the cells that touch the image, inside
    [S,S].
    """
    cells = F.adaptive_max_pool2d(inside[None].to(maps.dtype), maps.shape[1:]) > 0
    strongest = maps.masked_fill(~cells, -torch.inf).amax((1, 2), keepdim=True)
    return maps.relu() / strongest.clamp(min=FLOOR)
