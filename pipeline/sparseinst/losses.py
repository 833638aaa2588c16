"""What matched queries learn from their instances, and the others from having none (paper, section 3.4; specification, section 5).

    classification  sigmoid focal loss, alpha 0.25 and gamma 2, of all queries and classes
    dice            1 - DICE(sigma(m), t)
    mask            mean over the pixels of the binary cross-entropy of m and t
    objectness      binary cross-entropy of o and the IoU of [sigma(m) >= threshold] with [t > 1/2]

    semantic        cross-entropy of the classes of cells, for networks that predict them (YOLACT, section 3.4; not in SparseInst)

Dice, mask and objectness are those of matched queries. All but the last are sums divided by the number of matched pairs of all ranks;
the published code takes means over a rank's own pairs for mask and objectness, which then weigh pictures otherwise than the first two.
What belongs to an instance is scaled by its weight, in the first term the row of its query. Pixels that do not count are left out. The
last is a mean over the pixels that count: it teaches the encoder the classes from the first step on, where those of the queries are
learnt long after the masks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from pipeline.sparseinst.decoder import Outputs
from pipeline.sparseinst.matching import Matches, at_least_float32, dice
from pipeline.sparseinst.targets import Targets

EPSILON = 1e-6
"""Added to the union of masks, as published."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the terms in the loss; the values are those of the published code (the paper's table has 2 for mask)."""

    classification: float = 2.0
    dice: float = 2.0
    mask: float = 5.0
    objectness: float = 1.0
    semantic: float = 0.0


def losses(
    outputs: Outputs, targets: Targets, matches: Matches, pairs: Tensor, iou_threshold: float = 0.4
) -> dict[str, Tensor]:
    """The four terms, scalars of at least float32, not weighted yet; without any instance all but the first are 0.

    pairs: number of matched pairs that the sums are divided by, at least 1: that of the ranks' mean.
    """
    with torch.autocast(outputs.masks.device.type, enabled=False):
        logits = at_least_float32(outputs.masks[matches.picture, matches.query].flatten(1))
        objectness = at_least_float32(outputs.objectness[matches.picture, matches.query])
        masks, weights = targets.masks[matches.target].flatten(1), targets.weights[matches.target]
        valid = targets.valid[matches.picture].flatten(1)
        ious = _ious(logits, masks, valid, iou_threshold).to(objectness.dtype)
        terms = {
            "classification": _focal(at_least_float32(outputs.logits), targets, matches),
            **_mask_terms(logits, masks, valid, weights),
            "objectness": F.binary_cross_entropy_with_logits(objectness, ious, weights, reduction="sum"),
        }
    return {name: term / pairs for name, term in terms.items()}


def semantic_loss(logits: Tensor, targets: Targets, cells: Tensor) -> Tensor:
    """Term semantic of logits [B,1+K,h/2,w/2], of at least float32.

    cells: number of cells of the targets that count, which the sum is divided by: that of the ranks' mean.
    """
    with torch.autocast(logits.device.type, enabled=False):
        shares, valid = _class_shares(targets, logits.shape[1]), targets.valid[:, None]
        wanted = F.avg_pool2d(shares * valid, 2)
        entropies = -(wanted * at_least_float32(logits).log_softmax(1)).sum(1)
        return 4 * entropies.sum() / cells.clamp(min=1)


def _class_shares(targets: Targets, labels: int) -> Tensor:
    """Shares [B,1+K,h,w] of background and classes in each cell, those of instances scaled by their weights."""
    shares = targets.masks.new_zeros(len(targets.counts), labels, *targets.valid.shape[1:])
    counts = torch.tensor(targets.counts).to(shares.device, non_blocking=True)
    picture = torch.arange(len(counts), device=shares.device).repeat_interleave(counts)
    shares[:, 0].index_put_((picture,), -targets.masks, accumulate=True).add_(1).clamp_(min=0)
    weighted = targets.masks * targets.weights[:, None, None]
    return shares.index_put_((picture, 1 + targets.classes), weighted, accumulate=True)


def total_loss(terms: Mapping[str, Tensor], weights: Weights) -> Tensor:
    """The weighted sum of the terms."""
    return torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()


def _focal(logits: Tensor, targets: Targets, matches: Matches) -> Tensor:
    """Term classification of logits [B,N,K]."""
    wanted, rows = torch.zeros_like(logits), torch.ones_like(logits[..., 0])
    wanted[matches.picture, matches.query, targets.classes[matches.target]] = 1
    rows[matches.picture, matches.query] = targets.weights[matches.target].to(rows.dtype)
    return (sigmoid_focal_loss(logits, wanted, alpha=0.25, gamma=2).sum(2) * rows).sum()


def _mask_terms(logits: Tensor, masks: Tensor, valid: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Terms dice and mask of logits, masks and valid [M,P]."""
    probabilities, weighted = logits.sigmoid(), masks * valid
    squares = (probabilities.square() * valid).sum(1)
    overlaps = dice((probabilities * weighted).sum(1), squares, (weighted * masks).sum(1))
    entropies = (F.softplus(logits) * valid).sum(1) - (logits * weighted).sum(1)
    return {"dice": (weights * (1 - overlaps)).sum(), "mask": (weights * entropies / valid.sum(1)).sum()}


def _ious(logits: Tensor, masks: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """IoU [M] of the masks [M,P] that logits and targets give when cut at threshold and at 1/2; no gradient."""
    found, wanted = logits.detach().sigmoid() >= threshold, masks > 0.5
    shared, either = ((part * valid).sum(1) for part in (found & wanted, found | wanted))
    return shared / (either + EPSILON)
