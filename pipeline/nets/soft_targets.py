"""Soft targets for the final semantic model and a pairwise term along segments (DS-CRF, 2026).

For label probabilities s of the network and targets y at pixel p, both over the labels,

    L = mean_p -ln sum_l y_p^l s_p^l  +  boundary * mean_pq w_pq |s_p - s_q|^2 / 2

The first term is the collision cross-entropy (Zhang and Boykov, arXiv:2507.01721): minus the log of
the probability that label and prediction, drawn independently, are equal. It is the negative
log-likelihood for one-hot targets. For uniform targets it is the constant ln L, without gradient,
where cross-entropy would make the network as unsure as its target.

The second is the quadratic Potts relaxation over pairs p, q of horizontal and vertical neighbors,
with w_pq = 0 if one of them lies on a dilated border of segments, else 1: what is predicted may
change along borders alone, however exact these are.

Targets are y = (b, m_1, ..., m_K) / (b + sum_k m_k) with the image's class maps m_k in [0,1] and
the background's score b. Their argmax is the hard pseudo-label.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.artifacts import IGNORE
from pipeline.data.augmentation import Crops

if TYPE_CHECKING:
    from pipeline.core.trainer import TrainState

DILATION = 5
"""Side in pixels of the square by which borders are dilated (5 in the paper)."""

Targets = tuple[np.ndarray, np.ndarray]
"""Targets f4 [K,H,W] of some labels [K]; they sum to one, or to 0 where nothing is known."""


def from_maps(maps: np.ndarray, classes: np.ndarray, background: float) -> Targets:
    """Return the targets of background and classes.

    Args:
        maps: class maps f4 [K,H,W] in [0,1].
        classes: their 0-based classes [K].
        background: score of the background; at 0, pixels without any class are background too.
    """
    scores = np.concatenate([np.full((1, *maps.shape[1:]), max(background, 1e-6)), maps])
    return (scores / scores.sum(0)).astype(np.float32), np.append(0, classes.astype(int) + 1)


def from_labels(labels: np.ndarray) -> Targets:
    """Return one-hot targets of a label map uint8 [H,W]."""
    present = np.setdiff1d(labels, IGNORE).astype(int)
    return (labels == present[:, None, None]).astype(np.float32), present


def inside_segments(segments: np.ndarray) -> np.ndarray:
    """Return where a map of segments u2 [H,W] has no dilated border, bool [H,W]."""
    square = np.ones((DILATION, DILATION), np.uint8)
    inside: np.ndarray = cv2.dilate(segments, square) == cv2.erode(segments, square)
    return inside


@dataclass(eq=False)
class SoftCrops(Crops):
    """Crops uint8 [3,S,S] with targets f2 [L,S,S] of all L labels, and where the pairwise term
    applies, bool [S,S].

    Attributes:
        targets: Returns the targets of an id.
        inside: Returns where the pairwise term applies for an id, bool [H,W]; None for nowhere.
    """

    OUTSIDE: ClassVar[int] = 0
    targets: Callable[[str], Targets]
    inside: Callable[[str], np.ndarray] | None

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        name = self.names[number]
        targets, labels = self.targets(name)
        inside = self.inside(name) if self.inside else np.zeros(targets.shape[1:])
        maps = np.concatenate([targets, inside[None]]).astype(np.float16)
        image, cut, weights = self.augmented(name, maps)
        full = cut.new_zeros(len(self.index.classes) + 1, *cut.shape[1:])
        full[torch.from_numpy(labels)] = cut[:-1]
        return image, full, cut[-1] > 0, *weights


def soft_loss(
    network: nn.Module,
    batch: tuple[Tensor, ...],
    step: "TrainState",
    boundary: float,
) -> Mapping[str, Tensor]:
    """Return the loss above; each term is a mean over the batch on all ranks, 0 without any pixel
    or pair. Pixels count in the first by their weights, if there are any.
    """
    images, targets, inside, *weights = batch
    logits, weight = network(images).float(), weights[0] if weights else 1.0
    known = step.ranks.mean(((targets.sum(1) > 0) * weight).sum()).clamp(min=1)
    unary = (collision(logits, targets.float()) * weight).sum() / known
    if boundary == 0:
        return {"loss": unary}
    total, pairs = pairwise(logits, inside)
    change = total / step.ranks.mean(pairs).clamp(min=1)
    return {"loss": unary + boundary * change, "collision": unary, "pairwise": change}


def collision(logits: Tensor, targets: Tensor) -> Tensor:
    """Return -ln sum_l y^l s^l [B,H,W] of logits and targets [B,L,H,W]; 0 for targets of sum 0."""
    known = targets.sum(1, keepdim=True) > 0
    expected = torch.where(known, targets, torch.ones_like(targets)).log()
    return -(logits.log_softmax(1) + expected).logsumexp(1) * known[:, 0]


def pairwise(logits: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of |s_p - s_q|^2 / 2 over pairs that lie inside (bool [B,H,W]), and their
    number.
    """
    shares = logits.softmax(1)
    total, count = logits.new_zeros(()), logits.new_zeros(())
    for axis in (1, 2):
        size = inside.shape[axis] - 1
        both = inside.narrow(axis, 0, size) & inside.narrow(axis, 1, size)
        difference = shares.diff(dim=axis + 1).square().sum(1) / 2
        total, count = total + (difference * both).sum(), count + both.sum()
    return total, count
