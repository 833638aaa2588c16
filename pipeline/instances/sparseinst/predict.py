"""From outputs to instances: which queries count, their scores and their masks.

    s = sqrt(sigma(p) sigma(o)),   s' = s * mean of q over the cells with q > 0.45,   q = sigma(m)

for class logits p, objectness o and mask logits m. s is the paper's score (section 3.3); the
published code selects by s and then reports s'. An image without instances is a normal result.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.instances.base import Detections
from pipeline.instances.sparseinst.network import MASK_STRIDE, Outputs, at_least_float32

MASK_THRESHOLD = 0.45
"""q above which a pixel belongs to a mask, as published."""
EPSILON = 1e-6
"""Added to the number of cells above the threshold, as published."""
VALUES_AT_ONCE = 2**24
"""Interpolated float values in memory at once; one mask at least."""


class Queries(NamedTuple):
    """The selected queries [M], with mask probabilities [M,h,w], classes [M] and scores s' [M]."""

    queries: Tensor
    cells: Tensor
    classes: Tensor
    scores: Tensor


@torch.no_grad()
def detections(
    outputs: Outputs, inner: Sequence[int], size: Sequence[int], score: float
) -> Detections:
    """Return the instances of one image in the order of their queries, without empty masks; at
    least in float32.

    Args:
        outputs: logits [N,K], masks [N,h,w], objectness [N].
        inner: (H,W) of the image at the network's input, before padding.
        size: (H,W) of the image itself, and of the masks returned.
        score: s above which a query is kept.
    """
    with torch.autocast(outputs.masks.device.type, enabled=False):
        _, cells, classes, scores = select_queries(outputs, score)
        masks = upsample_masks(cells, inner, size)
    found = masks.flatten(1).any(1)
    return Detections(masks[found], classes[found], scores[found])


def select_queries(outputs: Outputs, score: float | Tensor) -> Queries:
    """Select the queries (logits [N,K], masks [N,h,w], objectness [N]) whose s exceeds `score`."""
    strongest, classes = at_least_float32(outputs.logits).max(1)
    scores = (strongest.sigmoid() * at_least_float32(outputs.objectness).sigmoid()).sqrt()
    queries = (scores > score).nonzero()[:, 0]
    cells = at_least_float32(outputs.masks[queries]).sigmoid_()
    above = cells > MASK_THRESHOLD
    sums, counts = (cells * above).sum((1, 2)), above.sum((1, 2)) + EPSILON
    return Queries(queries, cells, classes[queries], scores[queries] * sums / counts)


def upsample_masks(cells: Tensor, inner: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return masks bool [N,H,W]: where the probabilities, interpolated from the cells straight to
    the image, exceed the threshold.

    The published code interpolates twice, by way of the network's input, which differs at the edges
    alone. A few masks are interpolated at a time, so that memory stays bounded.

    Args:
        cells: probabilities [N,h,w] at stride 4 of the network's padded input.
        inner: (H,W) of the image at the network's input, without padding.
        size: (H,W) of the image itself.
    """
    height, width = size
    scale = [MASK_STRIDE * side / inside for side, inside in zip(size, inner, strict=True)]
    masks = torch.zeros(len(cells), height, width, dtype=torch.bool, device=cells.device)
    # One cell is repeated at the end: rounding must not leave the result a pixel short.
    padded = F.pad(cells[:, None], (0, 1, 0, 1), mode="replicate")
    values = round(padded[:1].numel() * scale[0] * scale[1])
    step = max(1, VALUES_AT_ONCE // max(1, values))
    for part, mask in zip(padded.split(step), masks.split(step), strict=True):
        full = F.interpolate(part, scale_factor=scale, mode="bilinear", align_corners=False)
        mask.copy_(full[:, 0, :height, :width] > MASK_THRESHOLD)
    return masks
