"""SparseInst's training loss: targets, matching and loss terms (paper, section 3.4).

Targets. Instances on the stride-4 grid that masks are predicted on. `area` takes the share of a
cell's 4x4 pixels that belong to the instance, so that no instance vanishes; `bilinear`, as
published, sees only the middle 2x2 of them and loses 44 % of the objects of 2x2 pixels.

Matching. Queries i and instances k are paired one to one so that the sum of C is maximal:

    C(i,k) = DICE(sigma(m_i), t_k)^0.8 * sigma(p_i)[c_k]^0.2
    DICE(m,t) = 2 sum mt / (sum m² + sum t² + eps)

An image's queries are compared with its own instances alone; the published code compares those of
the whole batch.

Loss. What matched queries learn from their instances, and the others from having none:

    classification  sigmoid focal loss, alpha 0.25 and gamma 2, of all queries and classes
    dice            1 - DICE(sigma(m), t)
    mask            mean over the pixels of the binary cross-entropy of m and t
    objectness      binary cross-entropy of o and the IoU of [sigma(m) >= 0.4] with [t > 1/2]
    semantic        cross-entropy of the classes of cells, for networks that predict them (YOLACT,
                    section 3.4; not in SparseInst)

Dice, mask and objectness are those of matched queries. The first four are sums divided by the
number of matched pairs of all ranks; the published code takes means over a rank's own pairs for
mask and objectness, which then weigh images differently from the other two. What belongs to an
instance is scaled by its weight, in the first term the row of its query. Sums over pixels count
each cell by the share of its pixels that are not ignored, or by their weights. The last term is a
mean over those pixels: it teaches the encoder the classes from the first step on, where queries
without its vote learn them long after the masks.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from pipeline.core.artifacts import IGNORE
from pipeline.core.trainer import TrainState
from pipeline.instances.sparseinst.network import (
    MASK_STRIDE,
    MULTIPLE,
    Outputs,
    at_least_float32,
)

RESIZING = {"area": range(4), "bilinear": range(1, 3)}
"""Rows and columns of a cell that a target averages over."""
ALPHA, BETA = 0.8, 0.2
"""Exponents of mask and class in the matching score, as in the paper."""
MASK_THRESHOLD = 0.4
"""Mask probability above which a cell counts for the IoU that objectness learns, as published."""
DICE_EPSILON, IOU_EPSILON = 1e-4, 1e-6
"""Added to the denominators of DICE and IoU, as published."""


class Targets(NamedTuple):
    """The T instances of B images, one image's after the other's.

    counts: instances of each image; classes: int64 [T]; weights: [T] in [0,1]; masks: [T,h,w] in
    [0,1], the instance's share of a cell's pixels that are not ignored; valid: [B,h,w], the share
    of a cell's pixels that are not ignored. Pixels count by their weights.
    """

    counts: list[int]
    classes: Tensor
    weights: Tensor
    masks: Tensor
    valid: Tensor


class Matches(NamedTuple):
    """M pairs, int64 [M] each: the image, its query, and the index of the instance in the batch's
    targets.
    """

    image: Tensor
    query: Tensor
    target: Tensor


def training_loss(
    network: nn.Module,
    batch: Sequence[Tensor],
    step: TrainState,
    *,
    loss: Mapping[str, float],
    target_resize: str,
    weight_by_score: bool,
) -> Mapping[str, Tensor]:
    """Return the terms of a batch of InstanceCrops and their weighted sum `loss`, scalars of at
    least float32; normalizers span all ranks.

    Args:
        network: a SparseInst in training mode.
        batch: images [B,3,S,S], ids [B,S,S], classes [B,M], scores [B,M], and weights [B,S,S] of
            pixels or nothing.
        step: gives means over the ranks.
        loss: weights of the terms by name (published: 2, 2, 5, 1 and 0; the paper has 2 for mask).
        target_resize: how masks are brought to stride 4: `area` or `bilinear`, see `targets_of`.
        weight_by_score: whether instances count by their scores.
    """
    images, ids, classes, scores, *pixels = batch
    outputs, semantic = network(images)
    scores = scores if weight_by_score else torch.ones_like(scores)
    targets = targets_of(ids, classes, scores, target_resize, *pixels)
    matches = match(outputs, targets)
    pairs = step.ranks.mean(matches.query.new_full((), len(matches.query)).float()).clamp(min=1)
    terms = loss_terms(outputs, targets, matches, pairs)
    if semantic is not None:
        terms["semantic"] = semantic_loss(semantic, targets, step.ranks.mean(targets.valid.sum()))
    return {"loss": total_loss(terms, loss), **terms}


def targets_of(
    ids: Tensor,
    classes: Tensor,
    weights: Tensor,
    resizing: str = "area",
    pixel_weights: Tensor | None = None,
) -> Targets:
    """Return the targets of id maps; instances without a visible pixel are left out.

    Args:
        ids: uint8 [B,H,W], 0 none, 1..254 instances, 255 ignored. They are padded to multiples of
            32 as images are, with ignored pixels.
        classes: uint8 [B,M], of ids 1..M; 255 for unused ones, which come last.
        weights: [B,M] in [0,1].
        resizing: `area` or `bilinear`.
        pixel_weights: [B,H,W], at least 1; None for 1 everywhere.
    """
    height, width = ids.shape[1:]
    beyond = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
    padded = F.pad(ids, beyond, value=IGNORE)
    counted = torch.ones_like(ids) if pixel_weights is None else pixel_weights
    counted = F.pad(counted, beyond) * (padded != IGNORE)
    used = classes != IGNORE
    slots = int(used.any(0).sum())
    known = torch.zeros_like(counted[:, ::MASK_STRIDE, ::MASK_STRIDE])
    hits = known.new_zeros(len(ids), slots, *known.shape[1:])  # bytes: a cell's 16 pixels fit
    numbers = torch.arange(1, slots + 1, dtype=ids.dtype, device=ids.device).view(-1, 1, 1)
    offsets = list(product(RESIZING[resizing], repeat=2))
    for down, right in offsets:
        pixels, weight = (
            part[:, down::MASK_STRIDE, right::MASK_STRIDE].contiguous()
            for part in (padded, counted)
        )
        hits += (pixels[:, None] == numbers) * weight[:, None]
        known += weight
    seen = (hits.flatten(2).amax(2) > 0) & used[:, :slots]
    image, slot = seen.nonzero().unbind(1)
    known = known.float()
    return Targets(
        seen.sum(1).tolist(),
        classes[image, slot].long(),
        weights[image, slot].float(),
        hits[image, slot].float().div_(known.clamp(min=1)[image]),
        known / len(offsets),
    )


@torch.no_grad()
def match(outputs: Outputs, targets: Targets) -> Matches:
    """Return the pairs of maximal score; where an image has more instances than queries, those that
    score best are matched.

    Computed at least in float32, whatever autocast says. Scores that are not finite count as 0, so
    that the loss reports them.
    """
    with torch.autocast(outputs.masks.device.type, enabled=False):
        scores = _scores(outputs, targets)
    pairs: list[tuple[np.ndarray, ...]] = []
    start = 0
    by_image = np.split(scores.cpu().numpy(), np.cumsum(targets.counts)[:-1], axis=1)
    for image, table in enumerate(by_image):
        query, target = linear_sum_assignment(table, maximize=True)
        pairs.append((np.full_like(query, image), query, target + start))
        start += table.shape[1]
    joined = torch.from_numpy(np.stack([np.concatenate(part) for part in zip(*pairs, strict=True)]))
    return Matches(*joined.to(outputs.masks.device, non_blocking=True))


def dice(products: Tensor, squares: Tensor, target_squares: Tensor) -> Tensor:
    """Return DICE from sum mt, sum m² and sum t², which broadcast."""
    return 2 * products / (squares + target_squares + DICE_EPSILON)


def _scores(outputs: Outputs, targets: Targets) -> Tensor:
    """Return C [N,T] of every instance with the queries of its own image."""
    parts: list[Tensor] = []
    masks = targets.masks.split(targets.counts)
    classes = targets.classes.split(targets.counts)
    for mask_logits, logits, valid, own_masks, own_classes in zip(
        outputs.masks, outputs.logits, targets.valid, masks, classes, strict=True
    ):
        overlaps = _overlaps(mask_logits.flatten(1), own_masks.flatten(1), valid.flatten())
        probabilities = at_least_float32(logits).sigmoid()[:, own_classes]
        parts.append(overlaps.pow(ALPHA) * probabilities.pow(BETA))
    return torch.cat(parts, 1).nan_to_num(0.0, 0.0, 0.0)


def _overlaps(logits: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """Return DICE [N,T] of mask logits [N,P] and masks [T,P]; T may be 0."""
    if not len(masks):
        return logits.new_zeros(len(logits), 0)
    probabilities = at_least_float32(logits).sigmoid()
    weighted = (masks * valid).to(probabilities.dtype)
    products = probabilities @ weighted.T
    squares = probabilities.square_() @ valid.to(probabilities.dtype)
    return dice(products, squares[:, None], (weighted * masks).sum(1))


def loss_terms(
    outputs: Outputs, targets: Targets, matches: Matches, pairs: Tensor
) -> dict[str, Tensor]:
    """Return the first four terms, scalars of at least float32, unweighted; without any instance
    all but the first are 0.

    pairs: number of matched pairs that the sums are divided by, at least 1: the mean over ranks.
    """
    with torch.autocast(outputs.masks.device.type, enabled=False):
        logits = at_least_float32(outputs.masks[matches.image, matches.query].flatten(1))
        objectness = at_least_float32(outputs.objectness[matches.image, matches.query])
        masks, weights = targets.masks[matches.target].flatten(1), targets.weights[matches.target]
        valid = targets.valid[matches.image].flatten(1)
        ious = _ious(logits, masks, valid).to(objectness.dtype)
        terms = {
            "classification": _focal_loss(at_least_float32(outputs.logits), targets, matches),
            **_mask_terms(logits, masks, valid, weights),
            "objectness": F.binary_cross_entropy_with_logits(
                objectness, ious, weights, reduction="sum"
            ),
        }
    return {name: term / pairs for name, term in terms.items()}


def semantic_loss(logits: Tensor, targets: Targets, cells: Tensor) -> Tensor:
    """Return term semantic of logits [B,1+K,h/2,w/2], at least in float32.

    cells: number of the targets' cells that are not ignored, which the sum is divided by: the mean
    over ranks.
    """
    with torch.autocast(logits.device.type, enabled=False):
        shares, valid = _class_shares(targets, logits.shape[1]), targets.valid[:, None]
        wanted = F.avg_pool2d(shares * valid, 2)
        entropies = -(wanted * at_least_float32(logits).log_softmax(1)).sum(1)
        return 4 * entropies.sum() / cells.clamp(min=1)


def _class_shares(targets: Targets, labels: int) -> Tensor:
    """Return the shares [B,1+K,h,w] of background and classes in each cell, those of instances
    scaled by their weights.
    """
    shares = targets.masks.new_zeros(len(targets.counts), labels, *targets.valid.shape[1:])
    counts = torch.tensor(targets.counts).to(shares.device, non_blocking=True)
    image = torch.arange(len(counts), device=shares.device).repeat_interleave(counts)
    shares[:, 0].index_put_((image,), -targets.masks, accumulate=True).add_(1).clamp_(min=0)
    weighted = targets.masks * targets.weights[:, None, None]
    return shares.index_put_((image, 1 + targets.classes), weighted, accumulate=True)


def total_loss(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the weighted sum of the terms."""
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def _focal_loss(logits: Tensor, targets: Targets, matches: Matches) -> Tensor:
    """Return term classification of logits [B,N,K]."""
    wanted, rows = torch.zeros_like(logits), torch.ones_like(logits[..., 0])
    wanted[matches.image, matches.query, targets.classes[matches.target]] = 1
    rows[matches.image, matches.query] = targets.weights[matches.target].to(rows.dtype)
    return (sigmoid_focal_loss(logits, wanted, alpha=0.25, gamma=2).sum(2) * rows).sum()


def _mask_terms(logits: Tensor, masks: Tensor, valid: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Return terms dice and mask of logits, masks and valid [M,P]."""
    probabilities, weighted = logits.sigmoid(), masks * valid
    squares = (probabilities.square() * valid).sum(1)
    overlaps = dice((probabilities * weighted).sum(1), squares, (weighted * masks).sum(1))
    entropies = (F.softplus(logits) * valid).sum(1) - (logits * weighted).sum(1)
    return {
        "dice": (weights * (1 - overlaps)).sum(),
        "mask": (weights * entropies / valid.sum(1)).sum(),
    }


def _ious(logits: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """Return the IoU [M] of predicted masks, cut at MASK_THRESHOLD, with masks [M,P] cut at 1/2; no
    gradient.
    """
    predicted, wanted = logits.detach().sigmoid() >= MASK_THRESHOLD, masks > 0.5
    shared, either = ((part * valid).sum(1) for part in (predicted & wanted, predicted | wanted))
    return shared / (either + IOU_EPSILON)
