"""Matching queries to instances one to one, by mask and class together (paper, section 3.4).

    C(i,k) = DICE(sigma(m_i), t_k)^alpha * sigma(p_i)[c_k]^beta,   DICE(m,t) = 2 sum mt / (sum m² + sum t² + eps)

The sum of C over the pairs is maximised in each picture. Sums over pixels count each cell by the share of its pixels that count. A
picture's queries are compared with its own instances alone; the published code compares those of the whole batch.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pipeline.sparseinst.decoder import Outputs
from pipeline.sparseinst.targets import Targets

EPSILON = 1e-4
"""Added to the denominator of DICE, as published."""


class Matches(NamedTuple):
    """M pairs, int64 [M] each: the picture, its query, and the instance's place among the targets of the batch."""

    picture: Tensor
    query: Tensor
    target: Tensor


@torch.no_grad()
def match(outputs: Outputs, targets: Targets, alpha: float = 0.8, beta: float = 0.2) -> Matches:
    """The pairs of greatest score; of more instances than queries in a picture, those that score best are matched.

    Computed in float32 at least, whatever autocast says. Scores that are not finite count as 0: the losses then tell of them.
    """
    with torch.autocast(outputs.masks.device.type, enabled=False):
        scores = _scores(outputs, targets, alpha, beta)
    found: list[tuple[np.ndarray, ...]] = []
    start = 0
    for picture, part in enumerate(np.split(scores.cpu().numpy(), np.cumsum(targets.counts)[:-1], axis=1)):
        query, target = linear_sum_assignment(part, maximize=True)
        found.append((np.full_like(query, picture), query, target + start))
        start += part.shape[1]
    joined = torch.from_numpy(np.stack([np.concatenate(part) for part in zip(*found, strict=True)]))
    return Matches(*joined.to(outputs.masks.device, non_blocking=True))


def dice(products: Tensor, squares: Tensor, target_squares: Tensor) -> Tensor:
    """DICE from sum mt, sum m² and sum t², which broadcast."""
    return 2 * products / (squares + target_squares + EPSILON)


def _scores(outputs: Outputs, targets: Targets, alpha: float, beta: float) -> Tensor:
    """C [N,T] of every instance with the queries of its own picture."""
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
    """DICE [N,T] of mask logits [N,P] with masks [T,P]; a picture without instances costs nothing."""
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
