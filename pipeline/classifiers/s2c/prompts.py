"""Prompting at the peaks of class maps, the asking half of CPM (paper, section 3.3): from maps of
crops to label maps of crops.

    conf^c(p) = stability^c * mean of A^c over M^c   on the mask M^c of class c, asked for at the peaks of A^c
    S(p) = argmax_c conf^c(p), background where no mask is

Masks are asked for in the whole image, which a segmenter has encoded once and for all, and brought
into the crop by the origins of its pixels; A^c is normalized to a maximum of 1.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.classifiers.s2c.peaks import peaks
from pipeline.core.artifacts import IGNORE, Record
from pipeline.segmenters.prompting import Prompter, Query


class Found(NamedTuple):
    """How sure the mask [S,S] of a class (label c + 1) within a crop is."""

    confidence: float
    label: int
    mask: Tensor


@dataclass(frozen=True, slots=True)
class Prompting:
    """How masks are asked for.

    scales: of the crops whose maps are searched; peak: value of a normalized map above which a
    local maximum is a point; distance: pixels between two points of a map at least.
    """

    prompter: Prompter
    scales: Sequence[float]
    peak: float
    distance: float

    def labels(
        self,
        network: nn.Module,
        images: Tensor,
        maps: Tensor,
        tags: Tensor,
        origins: Tensor,
        records: Sequence[Record | None],
    ) -> Tensor:
        """Label maps uint8 [B,S,S] of crops [B,3,S,S] whose class maps are [B,C,h,w]; no gradient.

        tags: 0/1 [B,C]; origins: [B,2,S,S], the pixel (y, x) of the image that each pixel of the
        crop comes from, -1 outside; records: what the segmenter gave for the images, None for one
        that it left out. The label is c + 1 on the mask of class c, 0 where no mask is, and IGNORE
        outside the image. Where a present class got no mask, nobody knows what is background:
        IGNORE then stands for 0, too.
        """
        pairs, inside = tags.cpu().nonzero(), origins[:, 0] >= 0
        present = pairs.to(maps.device, non_blocking=True)
        with torch.no_grad():
            scores = self._scores(network, images, maps.detach(), present) * inside[present[:, 0]]
        scores = scores / scores.amax((1, 2), keepdim=True).clamp(
            min=torch.finfo(scores.dtype).tiny
        )
        found = self._ask(scores, pairs.tolist(), origins, records)
        counts = pairs[:, 0].bincount(minlength=len(tags)).tolist()
        labels = [
            paint(own, known=len(own) == count, inside=shown)
            for own, count, shown in zip(found, counts, inside, strict=True)
        ]
        return torch.stack(labels)

    def _scores(self, network: nn.Module, images: Tensor, maps: Tensor, present: Tensor) -> Tensor:
        """Rectified maps [K,S,S] of the K pairs (image, class) of `present`, summed over the
        scales.
        """
        total = maps.new_zeros(len(present), *images.shape[2:])
        for scale in self.scales:
            at_scale = maps if scale == 1 else _maps(network, images, scale)
            chosen = at_scale[present[:, 0], present[:, 1]][:, None]
            enlarged = F.interpolate(chosen, total.shape[1:], mode="bilinear", align_corners=False)
            total = total + enlarged[:, 0].relu()
        return total

    def _ask(
        self,
        scores: Tensor,
        pairs: Sequence[Sequence[int]],
        origins: Tensor,
        records: Sequence[Record | None],
    ) -> list[list[Found]]:
        """The masks found in each crop; pairs: (image, class) of each of the scores. All prompts of
        the batch are one call.
        """
        queries, asked, sources = [], [], origins.cpu().numpy()
        for (image, label), score, here in zip(pairs, scores, scores.cpu().numpy(), strict=True):
            record, points = records[image], peaks(here, self.peak, self.distance)
            if record is not None and len(points):
                queries.append(Query(record, _points_xy(sources[image], points)))
                asked.append((image, label, score))
        answers = self.prompter.prompt(queries) if queries else []
        masks = [
            into_crop(answer.mask.to(origins.device, non_blocking=True), origins[image])
            for (image, _, _), answer in zip(asked, answers, strict=True)
        ]
        means = _means([score for _, _, score in asked], masks)
        found: list[list[Found]] = [[] for _ in records]
        for (image, label, _), answer, mask, mean in zip(asked, answers, masks, means, strict=True):
            if not math.isnan(mean):
                found[image].append(Found(answer.stability * mean, label + 1, mask))
        return found


def _means(scores: Sequence[Tensor], masks: Sequence[Tensor]) -> list[float]:
    """The mean of each map's scores on its mask, nan on an empty one."""
    means = [(s * m).sum(dtype=torch.float64) / m.sum() for s, m in zip(scores, masks, strict=True)]
    found: list[float] = torch.stack(means).tolist() if means else []
    return found


def into_crop(mask: Tensor, origins: Tensor) -> Tensor:
    """The mask [S,S] of a crop out of its image's [H,W], with origins [2,S,S]; False outside the
    image.
    """
    y, x = origins.clamp(min=0).long()
    return mask[y, x] & (origins[0] >= 0)


def paint(found: Sequence[Found], known: bool, inside: Tensor) -> Tensor:
    """The label map uint8 [S,S] of one crop: the surest mask wins, of equally sure ones the lowest
    class.

    known: whether what no mask covers is background, else IGNORE; inside: where the crop shows the
    image.
    """
    labels = torch.full_like(inside, 0 if known else IGNORE, dtype=torch.uint8)
    for _, label, mask in sorted(found, key=lambda one: (one.confidence, -one.label)):
        labels.masked_fill_(mask, label)
    return labels.masked_fill(~inside, IGNORE)


def _points_xy(sources: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Prompt coordinates f4 [P,2] in the image of pixels (y, x) [P,2] of a crop: the centers of the
    pixels they come from.
    """
    y, x = sources[:, points[:, 0], points[:, 1]]
    return (np.stack([x, y], 1) + 0.5).astype(np.float32)


def _maps(network: nn.Module, images: Tensor, scale: float) -> Tensor:
    """Class maps of the crops at another scale, as the network gives them when it does not learn."""
    size = [max(1, round(side * scale)) for side in images.shape[2:]]
    scaled = F.interpolate(
        images.float(), size, mode="bilinear", align_corners=False, antialias=scale < 1
    )
    bare: nn.Module = getattr(network, "module", network)
    with _evaluating(bare):
        maps, _ = bare(scaled)
    return maps.float()


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; each part returns to its own, which batch normalization may not
    share with the rest.
    """
    modes: Mapping[nn.Module, bool] = {part: part.training for part in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
