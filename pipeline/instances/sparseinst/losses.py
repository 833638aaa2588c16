"""What matched queries learn from their instances, and the others from having none (paper, section
3.4; specification, section 5).

    classification  sigmoid focal loss, alpha 0.25 and gamma 2, of all queries and classes
    dice            1 - DICE(sigma(m), t)
    mask            mean over the pixels of the binary cross-entropy of m and t
    objectness      binary cross-entropy of o and the IoU of [sigma(m) >= threshold] with [t > 1/2]

    semantic        cross-entropy of the classes of cells, for networks that predict them (YOLACT, section 3.4; not in SparseInst)

Dice, mask and objectness are those of matched queries. All but the last are sums divided by the
number of matched pairs of all ranks; the published code takes means over a rank's own pairs for
mask and objectness, which then weigh images otherwise than the first two. What belongs to an
instance is scaled by its weight, in the first term the row of its query. Pixels that do not count
are left out. The last is a mean over the pixels that count: it teaches the encoder the classes from
the first step on, where those of the queries are learned long after the masks.

What the instances of a batch look like on the stride-4 grid that masks are predicted on.

`area` takes the share of a cell's 4x4 pixels that belong to the instance, so no instance vanishes.
`bilinear`, as published, sees the middle 2x2 of them alone: of objects of 2x2 pixels it loses 44 %
(specification, section 4).

Matching queries to instances one to one, by mask and class together (paper, section 3.4).

    C(i,k) = DICE(sigma(m_i), t_k)^alpha * sigma(p_i)[c_k]^beta,   DICE(m,t) = 2 sum mt / (sum m² + sum t² + eps)

The sum of C over the pairs is maximized in each image. Sums over pixels count each cell by the
share of its pixels that count. A image's queries are compared with its own instances alone; the
published code compares those of the whole batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from pipeline.core.artifacts import IGNORE
from pipeline.instances.sparseinst.network import MASK_STRIDE, MULTIPLE, Outputs

RESIZING = {"area": range(4), "bilinear": range(1, 3)}
"""Rows and columns of a cell that are looked at."""


class Targets(NamedTuple):
    """The T instances of B images, one image's after the other's.

    counts: instances of each image; classes: int64 [T]; weights: [T] in [0,1]; masks: [T,h,w] in
    [0,1], the instance's share of a cell's pixels that count; valid: [B,h,w] in [0,1], the share of
    a cell's pixels that count.
    """

    counts: list[int]
    classes: Tensor
    weights: Tensor
    masks: Tensor
    valid: Tensor


def from_id_maps(ids: Tensor, classes: Tensor, weights: Tensor, resizing: str = "area") -> Targets:
    """The instances of id maps uint8 [B,H,W]: 0 none, 1..254 instances, 255 pixels that do not
    count.

    classes: uint8 [B,M], of ids 1..M, 255 for those not used, which come last; weights: [B,M] in
    [0,1]. Maps are padded to multiples of 32 as images are, with pixels that do not count. An
    instance of which no pixel is seen is left out. ValueError for another resizing.
    """
    if resizing not in RESIZING:
        raise ValueError(f"no resizing {resizing!r} of targets: use one of {', '.join(RESIZING)}")
    height, width = ids.shape[1:]
    padded = F.pad(ids, (0, -width % MULTIPLE, 0, -height % MULTIPLE), value=IGNORE)
    used = classes != IGNORE
    slots = int(used.any(0).sum())
    ignored = torch.zeros_like(padded[:, ::MASK_STRIDE, ::MASK_STRIDE])
    hits = ignored.new_zeros(len(ids), slots, *ignored.shape[1:])  # bytes: a cell's 16 pixels fit
    numbers = torch.arange(1, slots + 1, dtype=ids.dtype, device=ids.device).view(-1, 1, 1)
    offsets = list(product(RESIZING[resizing], repeat=2))
    for down, right in offsets:
        pixels = padded[:, down::MASK_STRIDE, right::MASK_STRIDE].contiguous()
        hits += pixels[:, None] == numbers
        ignored += pixels == IGNORE
    seen = (hits.flatten(2).amax(2) > 0) & used[:, :slots]
    image, slot = seen.nonzero().unbind(1)
    counting = (len(offsets) - ignored).float()
    return Targets(
        seen.sum(1).tolist(),
        classes[image, slot].long(),
        weights[image, slot].float(),
        hits[image, slot].float().div_(counting.clamp(min=1)[image]),
        counting / len(offsets),
    )


EPSILON = 1e-4
"""Added to the denominator of DICE, as published."""


class Matches(NamedTuple):
    """M pairs, int64 [M] each: the image, its query, and the instance's place among the targets of
    the batch.
    """

    image: Tensor
    query: Tensor
    target: Tensor


@torch.no_grad()
def match(outputs: Outputs, targets: Targets, alpha: float = 0.8, beta: float = 0.2) -> Matches:
    """The pairs of greatest score; of more instances than queries in an image, those that score
    best are matched.

    Computed in float32 at least, whatever autocast says. Scores that are not finite count as 0: the
    losses then tell of them.
    """
    with torch.autocast(outputs.masks.device.type, enabled=False):
        scores = _scores(outputs, targets, alpha, beta)
    found: list[tuple[np.ndarray, ...]] = []
    start = 0
    for image, part in enumerate(
        np.split(scores.cpu().numpy(), np.cumsum(targets.counts)[:-1], axis=1)
    ):
        query, target = linear_sum_assignment(part, maximize=True)
        found.append((np.full_like(query, image), query, target + start))
        start += part.shape[1]
    joined = torch.from_numpy(np.stack([np.concatenate(part) for part in zip(*found, strict=True)]))
    return Matches(*joined.to(outputs.masks.device, non_blocking=True))


def dice(products: Tensor, squares: Tensor, target_squares: Tensor) -> Tensor:
    """DICE from sum mt, sum m² and sum t², which broadcast."""
    return 2 * products / (squares + target_squares + EPSILON)


def _scores(outputs: Outputs, targets: Targets, alpha: float, beta: float) -> Tensor:
    """C [N,T] of every instance with the queries of its own image."""
    parts: list[Tensor] = []
    masks = targets.masks.split(targets.counts)
    classes = targets.classes.split(targets.counts)
    for logits, found, valid, wanted, labels in zip(
        outputs.masks, outputs.logits, targets.valid, masks, classes, strict=True
    ):
        overlaps = _overlaps(logits.flatten(1), wanted.flatten(1), valid.flatten())
        parts.append(overlaps.pow(alpha) * at_least_float32(found).sigmoid()[:, labels].pow(beta))
    return torch.cat(parts, 1).nan_to_num(0.0, 0.0, 0.0)


def _overlaps(logits: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """DICE [N,T] of mask logits [N,P] with masks [T,P]; an image without instances costs nothing."""
    if not len(masks):
        return logits.new_zeros(len(logits), 0)
    probabilities = at_least_float32(logits).sigmoid()
    weighted = (masks * valid).to(probabilities.dtype)
    products = probabilities @ weighted.T
    squares = probabilities.square_() @ valid.to(probabilities.dtype)
    return dice(products, squares[:, None], (weighted * masks).sum(1))


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32, others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


EPSILON = 1e-6
"""Added to the union of masks, as published."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the terms in the loss; the values are those of the published code (the paper's table has 2
    for mask).
    """

    classification: float = 2.0
    dice: float = 2.0
    mask: float = 5.0
    objectness: float = 1.0
    semantic: float = 0.0


def losses(
    outputs: Outputs, targets: Targets, matches: Matches, pairs: Tensor, iou_threshold: float = 0.4
) -> dict[str, Tensor]:
    """The four terms, scalars of at least float32, not weighted yet; without any instance all but
    the first are 0.

    pairs: number of matched pairs that the sums are divided by, at least 1: that of the ranks'
    mean.
    """
    with torch.autocast(outputs.masks.device.type, enabled=False):
        logits = at_least_float32(outputs.masks[matches.image, matches.query].flatten(1))
        objectness = at_least_float32(outputs.objectness[matches.image, matches.query])
        masks, weights = targets.masks[matches.target].flatten(1), targets.weights[matches.target]
        valid = targets.valid[matches.image].flatten(1)
        ious = _ious(logits, masks, valid, iou_threshold).to(objectness.dtype)
        terms = {
            "classification": _focal(at_least_float32(outputs.logits), targets, matches),
            **_mask_terms(logits, masks, valid, weights),
            "objectness": F.binary_cross_entropy_with_logits(
                objectness, ious, weights, reduction="sum"
            ),
        }
    return {name: term / pairs for name, term in terms.items()}


def semantic_loss(logits: Tensor, targets: Targets, cells: Tensor) -> Tensor:
    """Term semantic of logits [B,1+K,h/2,w/2], of at least float32.

    cells: number of cells of the targets that count, which the sum is divided by: that of the
    ranks' mean.
    """
    with torch.autocast(logits.device.type, enabled=False):
        shares, valid = _class_shares(targets, logits.shape[1]), targets.valid[:, None]
        wanted = F.avg_pool2d(shares * valid, 2)
        entropies = -(wanted * at_least_float32(logits).log_softmax(1)).sum(1)
        return 4 * entropies.sum() / cells.clamp(min=1)


def _class_shares(targets: Targets, labels: int) -> Tensor:
    """Shares [B,1+K,h,w] of background and classes in each cell, those of instances scaled by their
    weights.
    """
    shares = targets.masks.new_zeros(len(targets.counts), labels, *targets.valid.shape[1:])
    counts = torch.tensor(targets.counts).to(shares.device, non_blocking=True)
    image = torch.arange(len(counts), device=shares.device).repeat_interleave(counts)
    shares[:, 0].index_put_((image,), -targets.masks, accumulate=True).add_(1).clamp_(min=0)
    weighted = targets.masks * targets.weights[:, None, None]
    return shares.index_put_((image, 1 + targets.classes), weighted, accumulate=True)


def total_loss(terms: Mapping[str, Tensor], weights: Weights) -> Tensor:
    """The weighted sum of the terms."""
    return torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()


def _focal(logits: Tensor, targets: Targets, matches: Matches) -> Tensor:
    """Term classification of logits [B,N,K]."""
    wanted, rows = torch.zeros_like(logits), torch.ones_like(logits[..., 0])
    wanted[matches.image, matches.query, targets.classes[matches.target]] = 1
    rows[matches.image, matches.query] = targets.weights[matches.target].to(rows.dtype)
    return (sigmoid_focal_loss(logits, wanted, alpha=0.25, gamma=2).sum(2) * rows).sum()


def _mask_terms(logits: Tensor, masks: Tensor, valid: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Terms dice and mask of logits, masks and valid [M,P]."""
    probabilities, weighted = logits.sigmoid(), masks * valid
    squares = (probabilities.square() * valid).sum(1)
    overlaps = dice((probabilities * weighted).sum(1), squares, (weighted * masks).sum(1))
    entropies = (F.softplus(logits) * valid).sum(1) - (logits * weighted).sum(1)
    return {
        "dice": (weights * (1 - overlaps)).sum(),
        "mask": (weights * entropies / valid.sum(1)).sum(),
    }


def _ious(logits: Tensor, masks: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """IoU [M] of the masks [M,P] that logits and targets give when cut at threshold and at 1/2; no
    gradient.
    """
    found, wanted = logits.detach().sigmoid() >= threshold, masks > 0.5
    shared, either = ((part * valid).sum(1) for part in (found & wanted, found | wanted))
    return shared / (either + EPSILON)
