"""The loss of S2C (Kweon and Yoon, CVPR 2024) and its terms: classification, segment contrast
(SSC), and consistency of class maps with prompted masks (CPM).

    loss = L_cls + ssc_weight L_SSC + cpm_weight L_CPM,   L_cls = multi-label soft margin of GAP(A)

SSC (section 3.2) draws the pixels p of a segment SE_i to its prototype, away from the others':

    pt_i = mean of F_p over p in SE_i,
    L_SSC = mean over p in SE_i of -ln softmax_j(cos(F_p, pt_j) / T)[i]

F at a pixel is the coarse feature map interpolated bilinearly. As that is linear, no feature needs
to be interpolated at all: a prototype is a weighted mean of the coarse cells, and the products
F_p . pt_j are the interpolated products of the cells with pt_j. Only these products are computed
at the pixels, one number a segment instead of D channels, and a few rows of pixels at a time.

The paper does not say whether prototypes learn. As functions of F they do here, unless they are
detached: then they are constants, the means of F_p / |F_p|, and that of the pixels in no segment is
one more negative, as in the published code.

CPM (section 3.3) teaches class maps by label maps painted from prompted masks (prompts.py):

    S^c = ReLU(A^c) / max A^c for the classes present,   S^0 = 1 - max_c S^c,
    L_CPM = -ln softmax([S^0, S])[label]

The scores are the logits, as published: near to linear in a bounded score, so a wrong mask pulls no
harder than a right one, where -ln S^c would pull hardest at pixels without any response. The
gradient goes through the maximum too: the loss does not depend on the scale of a map, and cannot
raise or lower the class's logit merely to please the masks.

Differences from the published code: the temperature divides the cosines, as in the paper (there it
multiplies them, so that its 1 is ours, and its 2 our 0.5); segments that are not in the crop are no
negatives; the smallest segment owns a pixel. In CPM absent classes are no competitors (there each
counts as an empty map in the softmax, which changes the gradient little); a map that reaches less
than FLOOR is divided by that; every image weighs the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pipeline.classifiers.base import classification_loss, present
from pipeline.classifiers.s2c.prompts import Prompting
from pipeline.core.artifacts import IGNORE, Reader
from pipeline.core.device import to_device, to_numpy
from pipeline.core.trainer import TrainState

CHUNK = 1 << 19
"""Products computed at a time: few enough for a processor's cache."""
SMALLEST = 1e-12
"""Squared length below which a feature counts as zero: its cosine with every prototype is 0."""
NONE = -1
"""Target of a pixel without a segment."""
FLOOR = 1.0
"""Least divisor of a map, in logits: a faint map, for example of a class that the crop cut off, is
not blown up, nor is its gradient.
"""


@dataclass(frozen=True, slots=True)
class S2CLoss:
    """The loss of a batch of SegmentedCrops and its terms `cls`, and `ssc` and `cpm` if on.

    Args:
        segments: Records of the segments; names: ids of the images, by the samples' numbers.
        prompting: How masks are prompted; None turns CPM off.
        ssc: Whether features are contrasted; ssc_weight: weight of that term.
        temperature, stride: See segment_contrast.
        prototypes: `learned` or `detached`, see segment_contrast.
        cpm_weight: Weight of CPM; warmup: epochs without it.
    """

    segments: Reader
    names: Sequence[str]
    prompting: Prompting | None
    ssc: bool
    ssc_weight: float
    temperature: float
    prototypes: str
    stride: int
    cpm_weight: float
    warmup: float

    def __call__(
        self, network: nn.Module, batch: Sequence[Tensor], step: TrainState
    ) -> Mapping[str, Tensor]:
        """Return `loss`, the weighted sum, and its terms."""
        images, tags, segments, origins, numbers = batch
        maps, features = (part.float() for part in network(images))
        terms = {"cls": classification_loss(maps.mean((2, 3)), tags)}
        loss = terms["cls"]
        if self.ssc:
            terms["ssc"] = segment_contrast(
                features,
                segments,
                self.temperature,
                self.stride,
                detached=self.prototypes == "detached",
            )
            loss = loss + self.ssc_weight * terms["ssc"]
        if self.prompting:
            terms["cpm"] = maps.new_zeros(())
            if step.epoch >= self.warmup:
                names = [self.names[number] for number in numbers.tolist()]
                skipped = self.segments.skipped
                records = [None if name in skipped else self.segments[name] for name in names]
                labels = self.prompting.labels(
                    network, images, maps, present(tags), origins, records
                )
                terms["cpm"] = map_loss(maps, tags, labels, origins[:, 0] >= 0)
            loss = loss + self.cpm_weight * terms["cpm"]
        return {"loss": loss, **terms}


# SSC


class Taps(NamedTuple):
    """Bilinear interpolation along one axis: the two cells [P,2] that each pixel lies between, and
    their weights [P,2].
    """

    cells: Tensor
    weights: Tensor

    def matrix(self, cells: int) -> Tensor:
        """Return the weights [P,cells] of all cells."""
        zeros = self.weights.new_zeros(len(self.cells), cells)
        return zeros.scatter_add(1, self.cells, self.weights)


def segment_contrast(
    features: Tensor, segments: Tensor, temperature: float, stride: int, *, detached: bool = False
) -> Tensor:
    """Return the SSC loss of a batch: the mean over its images of the mean over an image's pixels
    in segments; 0 for an image without any.

    The prototypes of an image are those of its own segments, so the rest of the batch changes
    nothing.

    Args:
        features: F [B,D,h,w].
        segments: Integer ids [B,H,W], 0 = none.
        temperature: T, divides the cosines.
        stride: Every stride-th pixel of every stride-th row takes part.
        detached: Whether prototypes are constants, the means of normalized features, with that of
            the pixels in no segment as one more negative; else they learn like the pixels do.
    """
    sizes = zip(segments.shape[1:], features.shape[2:], strict=True)
    rows, columns = (taps(side, cells, stride, features) for side, cells in sizes)
    places = segments[:, stride // 2 :: stride, stride // 2 :: stride].long()
    images = zip(features, *rank_ids(places), strict=True)
    losses = [_contrast_image(*image, rows, columns, temperature, detached) for image in images]
    return torch.stack(losses).mean()


def taps(side: int, cells: int, stride: int, like: Tensor) -> Taps:
    """Return the interpolation of `cells` that span `side` pixels, at the pixels stride // 2,
    stride // 2 + stride, ...
    """
    pixels = torch.arange(stride // 2, side, stride, dtype=torch.float64, device=like.device)
    where = ((pixels + 0.5) * (cells / side) - 0.5).clamp(0, cells - 1)
    low = where.floor().long()
    share = (where - low).to(like.dtype)
    neighbors = torch.stack([low, (low + 1).clamp(max=cells - 1)], 1)
    return Taps(neighbors, torch.stack([1 - share, share], 1))


def _contrast_image(
    features: Tensor,
    targets: Tensor,
    count: int,
    uncovered: int,
    rows: Taps,
    columns: Taps,
    temperature: float,
    detached: bool,
) -> Tensor:
    """Return the loss of one image.

    features: [D,h,w]; targets: [P,Q], ranks below `count`, or NONE, at the pixels of the taps;
    uncovered: 1 if NONE occurs, else 0.
    """
    if count == 0:
        return features.new_zeros(())
    down, across = rows.matrix(features.shape[1]), columns.matrix(features.shape[2])
    source, shares, kept = features, torch.ones_like(targets, dtype=features.dtype), count
    if detached:
        source, kept = features.detach(), count + uncovered
        shares = 1 / lengths(source, down, across)
    weights = cell_weights(targets, count, shares, rows, columns, tuple(features.shape[1:]))
    prototypes = F.normalize(weights[:kept].flatten(1) @ source.flatten(1).T, dim=1)
    products = across @ torch.einsum("nd,dhw->hwn", prototypes, features)  # [h,Q,N]
    factors = 1 / (temperature * lengths(features, down, across))
    step, total = max(1, CHUNK // products[0].numel()), features.new_zeros(())
    for start in range(0, len(down), step):
        part = slice(start, start + step)
        arguments = (products, down[part], factors[part], targets[part])
        total = total + checkpoint(
            _contrast_rows, *arguments, use_reentrant=False, preserve_rng_state=False
        )
    return total / (targets != NONE).sum()


def _contrast_rows(products: Tensor, down: Tensor, factors: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of the cross-entropies of a few rows of pixels."""
    logits = (down @ products.flatten(1)).view(-1, products.shape[2]) * factors.flatten()[:, None]
    return F.cross_entropy(logits, targets.flatten(), ignore_index=NONE, reduction="sum")


def rank_ids(ids: Tensor) -> tuple[Tensor, list[int], list[int]]:
    """Renumber the ids above 0 that occur in each image of [B,P,Q] consecutively from 0.

    Returns:
        Targets [B,P,Q], NONE where an id is 0; the number of ids of each image; and 1 where 0
        occurs, else 0.
    """
    flat = ids.flatten(1)
    occurs = ids.new_zeros(len(ids), int(ids.max()) + 1, dtype=torch.bool).scatter_(1, flat, True)
    zero = occurs[:, 0].long()
    occurs[:, 0] = False
    numbers = torch.where(occurs, occurs.cumsum(1) - 1, NONE)
    counts, uncovered = torch.stack([occurs.sum(1), zero]).tolist()
    return numbers.gather(1, flat).view(ids.shape), counts, uncovered


def cell_weights(
    targets: Tensor,
    count: int,
    shares: Tensor,
    rows: Taps,
    columns: Taps,
    size: tuple[int, ...],
) -> Tensor:
    """Return the weights [N+1,h,w] of the coarse cells in the mean of the interpolated features
    over the pixels of each of the `count` targets [P,Q], and last over those of NONE.

    shares: [P,Q], what each pixel counts in its mean; size: (h, w).
    """
    height, width = size
    sums = shares.new_zeros((count + 1) * height * width)
    starts = targets % (count + 1) * (height * width)
    for y in (0, 1):
        for x in (0, 1):
            cells = rows.cells[:, y, None] * width + columns.cells[:, x]
            parts = rows.weights[:, y, None] * columns.weights[:, x] * shares
            sums.index_add_(0, (starts + cells).flatten(), parts.flatten())
    sums = sums.view(count + 1, height, width)
    return sums / sums.sum((1, 2), keepdim=True)


def lengths(features: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Return the lengths [P,Q] of the interpolated features; a pixel lies between two rows of
    cells, hence squares and a mixed term.
    """
    rows = features @ across.T  # [D,h,Q]
    squares = down.square() @ rows.square().sum(0)
    mixed = (down[:, :-1] * down[:, 1:]) @ (rows[:, :-1] * rows[:, 1:]).sum(0)
    return (squares + 2 * mixed).clamp(min=SMALLEST).sqrt()


# CPM


def map_loss(maps: Tensor, tags: Tensor, labels: Tensor, inside: Tensor) -> Tensor:
    """Return the CPM loss of a batch: the mean over its images of the mean cross-entropy over an
    image's labeled pixels; 0 for an image without any.

    Args:
        maps: A [B,C,h,w].
        tags: 0/1 [B,C].
        labels: uint8 [B,S,S], 0 background, c + 1 a present class c, or IGNORE.
        inside: bool [B,S,S], where the crops show the image: maxima outside do not count.
    """
    labeled = (labels != IGNORE).flatten(1).any(1)
    # an image without labeled pixels learns nothing of any class
    (learned,) = to_numpy([(tags > 0) & labeled[:, None]])
    classes = to_device([own.nonzero()[0] for own in learned], np.int64, maps.device)
    images = zip(maps, classes, labels, inside, strict=True)
    return torch.stack([_map_loss_of_image(*image) for image in images]).mean()


def _map_loss_of_image(maps: Tensor, present: Tensor, labels: Tensor, inside: Tensor) -> Tensor:
    """Return the loss of one image with the present classes [K]; 0 without any."""
    if not len(present):
        return maps.new_zeros(())
    places = torch.full((IGNORE + 1,), IGNORE, device=labels.device)
    places[0] = 0
    places[present + 1] = torch.arange(1, len(present) + 1, device=labels.device)
    scores = normalize_maps(maps[present], inside)
    at_pixels = F.interpolate(scores[None], labels.shape, mode="bilinear", align_corners=False)[0]
    logits = torch.cat([1 - at_pixels.amax(0, keepdim=True), at_pixels])
    return F.cross_entropy(logits[None], places[labels.long()][None], ignore_index=IGNORE)


def normalize_maps(maps: Tensor, inside: Tensor) -> Tensor:
    """Divide ReLU(A) [K,h,w] by each map's maximum over the cells that touch the image, where
    `inside` bool [S,S].
    """
    cells = F.adaptive_max_pool2d(inside[None].to(maps.dtype), maps.shape[1:]) > 0
    strongest = maps.masked_fill(~cells, -torch.inf).amax((1, 2), keepdim=True)
    return maps.relu() / strongest.clamp(min=FLOOR)
