"""From outputs to instances: which queries count, their scores and masks (specification, section
6).

    s = sqrt(sigma(p) sigma(o)),   s' = s * mean of q over the cells with q > threshold,   q = sigma(m)

Where nothing is found there are no detections, which is a result like others.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.instances.base import Detections, resized
from pipeline.instances.sparseinst.enlarging import RESIZINGS, enlarged
from pipeline.instances.sparseinst.losses import at_least_float32
from pipeline.instances.sparseinst.network import Network, Outputs
from pipeline.nets.backbones import micro_batches

EPSILON = 1e-6
"""Added to the number of cells above the threshold, as published."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as found; the values are the published ones except for the resizing.

    score: s above which a query is kept; mask: q above which a pixel belongs to it; maskness:
    whether s' is the score, or s as in the paper; resizing: `single`, from the predicted cells
    straight to the image, or `published`, by way of the network's input. ValueError for another
    resizing.
    """

    score: float = 0.005
    mask: float = 0.45
    maskness: bool = True
    resizing: str = "single"

    def __post_init__(self) -> None:
        if self.resizing not in RESIZINGS:
            raise ValueError(
                f"no resizing {self.resizing!r} of masks: use one of {', '.join(RESIZINGS)}"
            )


@torch.inference_mode()
def detect(
    network: Network, images: Sequence[Tensor], *, score: float, sides: Sequence[int] | None = None
) -> list[Detections]:
    """Instances of images [3,H,W] in 0..255 of any sizes, each as if it were alone.

    score: see Rules; sides: shorter and longest side in pixels at which the network sees an image;
    None for its own. Images padded to one size go through the network together.
    """
    rules = Rules(score)
    given = [image[None] if sides is None else resized(image[None], sides) for image in images]
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    prepared = [network.prepare(image) for image in given]
    for number, image in enumerate(prepared):
        groups[tuple(image.shape)].append(number)
    found: dict[int, Detections] = {}
    for numbers in groups.values():
        parts = [
            network.predict(part)
            for part in micro_batches(torch.cat([prepared[n] for n in numbers]))
        ]
        joined = Outputs(*map(torch.cat, zip(*parts, strict=True)))
        for number, *outputs in zip(numbers, *joined, strict=True):
            inner, size = given[number].shape[2:], images[number].shape[1:]
            found[number] = detections(Outputs(*outputs), inner, size, rules)
    return [found[number] for number in range(len(images))]


@torch.no_grad()
def detections(
    outputs: Outputs, inner: Sequence[int], size: Sequence[int], rules: Rules
) -> Detections:
    """Instances of one image, in the order of their queries; those whose mask has no pixel are left
    out.

    outputs: logits [N,K], masks [N,h,w], objectness [N]; inner: (H,W) of the image at the network's
    input, before padding; size: its own (H,W), of the masks returned. Computed in float32 at least.
    """
    with torch.autocast(outputs.masks.device.type, enabled=False):
        _, cells, classes, scores = keep(outputs, rules.score, rules)
        masks, found = enlarged(cells, inner, size, rules.mask, rules.resizing)
    if found.all():
        return Detections(masks, classes, scores)
    return Detections(masks[found], classes[found], scores[found])


class Kept(NamedTuple):
    """The queries [M] that count, with mask probabilities [M,h,w], classes [M] and scores [M]."""

    queries: Tensor
    cells: Tensor
    classes: Tensor
    scores: Tensor


def keep(outputs: Outputs, score: float | Tensor, rules: Rules) -> Kept:
    """Those of the queries (logits [N,K], masks [N,h,w], objectness [N]) whose s is above `score`,
    with s or s' as the rules say.
    """
    strongest, classes = at_least_float32(outputs.logits).max(1)
    scores = (strongest.sigmoid() * at_least_float32(outputs.objectness).sigmoid()).sqrt()
    queries = (scores > score).nonzero()[:, 0]
    cells = at_least_float32(outputs.masks[queries]).sigmoid_()
    classes, scores = classes[queries], scores[queries]
    if rules.maskness:
        above = cells > rules.mask
        scores = scores * (cells * above).sum((1, 2)) / (above.sum((1, 2)) + EPSILON)
    return Kept(queries, cells, classes, scores)
