"""The masks of S2C's CPM (Kweon and Yoon, CVPR 2024, section 3.3): from class maps of crops to
label maps of crops, by prompts at the peaks of the maps.

    conf^c(p) = sure^c(p) * mean of A^c over M^c   on the mask M^c of class c, prompted at the peaks
                                                   of A^c
    S(p) = argmax_c conf^c(p), background where no mask is

with A^c normalized to a maximum of 1, and sure^c the segmenter's: SAM's logits, as in the published
code, or how stable a mask of superpixels is. Masks are prompted in the whole image, which a
segmenter has encoded once, and mapped into the crop by the origins of its pixels.

Differences from the published code: a map's points include peaks near the border, each once, and an
empty map has none; maps at scale 1 are those that the crop learns from (there computed once more in
evaluation mode); padding is ignored, and so is what may be background as long as a present class
got no mask (there both are background).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from skimage.morphology import local_maxima
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.core.artifacts import IGNORE, Record
from pipeline.nets.backbones import resize_by
from pipeline.segmenters.prompting import Prompter, Query


class PromptMask(NamedTuple):
    """The mask of a class (label c + 1) within a crop: the confidence f4 [S,S] of each pixel, at
    least 0 on the mask, -inf elsewhere.
    """

    label: int
    confidence: Tensor


@dataclass(frozen=True, slots=True)
class Prompting:
    """How label maps are made of prompted masks.

    Args:
        prompter: Answers the prompts.
        scales: Scales of the crops whose maps are added up before peaks are searched.
        peak: Value of a normalized map above which a local maximum is a point.
        distance: Least distance between two points of a map in pixels.
    """

    prompter: Prompter
    scales: Sequence[float]
    peak: float
    distance: float

    @torch.no_grad()
    def labels(
        self,
        network: nn.Module,
        images: Tensor,
        maps: Tensor,
        tags: Tensor,
        origins: Tensor,
        records: Sequence[Record | None],
    ) -> Tensor:
        """Paint the prompted masks of a batch of crops; no gradient.

        Args:
            network: S2C, for maps at scales other than 1.
            images: Crops [B,3,S,S].
            maps: Class maps [B,C,h,w] of the crops.
            tags: 0/1 [B,C].
            origins: [B,2,S,S], the pixel (y, x) of the image that each pixel of the crop comes
                from, -1 outside.
            records: The segmenter's records of the images, None for one that it skipped.

        Returns:
            Label maps uint8 [B,S,S]: c + 1 on the mask of class c, 0 where no mask is, and IGNORE
            outside the image. Where a present class got no mask, the background is unknown, and
            IGNORE replaces 0, too.
        """
        pairs, inside = tags.cpu().nonzero(), origins[:, 0] >= 0
        present = pairs.to(maps.device, non_blocking=True)
        scores = self._scores(network, images, maps.detach(), present) * inside[present[:, 0]]
        tiny = torch.finfo(scores.dtype).tiny
        scores = scores / scores.amax((1, 2), keepdim=True).clamp(min=tiny)
        found = self._prompt(scores, pairs.tolist(), origins, records)
        counts = pairs[:, 0].bincount(minlength=len(tags)).tolist()
        labels = [
            paint(own, known=len(own) == count, inside=visible)
            for own, count, visible in zip(found, counts, inside, strict=True)
        ]
        return torch.stack(labels)

    def _scores(self, network: nn.Module, images: Tensor, maps: Tensor, present: Tensor) -> Tensor:
        """Sum the rectified maps [K,S,S] of the pairs (image, class) `present` over the scales."""
        total = maps.new_zeros(len(present), *images.shape[2:])
        for scale in self.scales:
            at_scale = maps if scale == 1 else _maps(network, images, scale)
            chosen = at_scale[present[:, 0], present[:, 1]][:, None]
            enlarged = F.interpolate(chosen, total.shape[1:], mode="bilinear", align_corners=False)
            total = total + enlarged[:, 0].relu()
        return total

    def _prompt(
        self,
        scores: Tensor,
        pairs: Sequence[Sequence[int]],
        origins: Tensor,
        records: Sequence[Record | None],
    ) -> list[list[PromptMask]]:
        """Prompt a mask for each of the scores [K,S,S], whose (image, class) are `pairs`.

        All prompts of the batch are one call. Returns the masks of each crop, without empty ones.
        """
        queries, prompted, sources = [], [], origins.cpu().numpy()
        for (image, label), score, values in zip(pairs, scores, scores.cpu().numpy(), strict=True):
            record, points = records[image], peaks(values, self.peak, self.distance)
            if record is not None and len(points):
                queries.append(Query(record, _points_xy(sources[image], points)))
                prompted.append((image, label, score))
        answers = self.prompter.prompt(queries) if queries else []
        sure = [
            map_to_crop(answer.to(origins.device, non_blocking=True), origins[image])
            for (image, _, _), answer in zip(prompted, answers, strict=True)
        ]
        means = _means([score for _, _, score in prompted], [crop > 0 for crop in sure])
        found: list[list[PromptMask]] = [[] for _ in records]
        for (image, label, _), crop, mean in zip(prompted, sure, means, strict=True):
            if not math.isnan(mean):
                confidence = (crop * mean).masked_fill(crop <= 0, -torch.inf)
                found[image].append(PromptMask(label + 1, confidence))
        return found


def paint(masks: Sequence[PromptMask], known: bool, inside: Tensor) -> Tensor:
    """Paint the label map uint8 [S,S] of one crop: at each pixel the most confident of the masks
    wins, of equals the first.

    known: whether uncovered pixels are background, else IGNORE; inside: bool [S,S], where the crop
    shows the image.
    """
    labels = torch.full_like(inside, 0 if known else IGNORE, dtype=torch.uint8)
    highest = torch.full_like(inside, -torch.inf, dtype=torch.float32)
    for label, confidence in masks:
        labels.masked_fill_(confidence > highest, label)
        highest = highest.maximum(confidence)
    return labels.masked_fill(~inside, IGNORE)


def map_to_crop(values: Tensor, origins: Tensor) -> Tensor:
    """Map values [H,W] at an image's pixels to a crop [S,S] with origins [2,S,S]; 0 outside."""
    y, x = origins.clamp(min=0).long()
    return values[y, x] * (origins[0] >= 0)


def peaks(scores: np.ndarray, threshold: float, distance: float) -> np.ndarray:
    """Return the local maxima [P,2] (y, x) of a map, the strongest first.

    A plateau counts once, by its pixel nearest the middle, and only if nothing next to it is
    higher; maxima on the border count like others.

    Args:
        scores: [H,W], at least 0; P is 0 if all are 0.
        threshold: Value that a maximum must exceed, unless it is the global one.
        distance: Least distance in pixels (Euclidean) from every stronger maximum that is kept.
    """
    if scores.max(initial=0) <= 0:
        return np.empty((0, 2), np.intp)
    strong = local_maxima(scores, connectivity=2) & (
        (scores > threshold) | (scores == scores.max())
    )
    candidates = _middles(strong | (scores.min() == scores.max()))
    order = np.argsort(-scores[tuple(candidates.T)], kind="stable")
    kept: list[np.ndarray] = []
    for point in candidates[order]:
        if all(np.hypot(*(point - other)) >= distance for other in kept):
            kept.append(point)
    return np.stack(kept)


def _middles(plateaus: np.ndarray) -> np.ndarray:
    """Return one pixel (y, x) of each connected part of [H,W]: the nearest to its centroid."""
    parts, count = ndimage.label(plateaus, np.ones((3, 3)))
    middles = []
    for number, box in enumerate(ndimage.find_objects(parts, count), 1):
        pixels = np.argwhere(parts[box] == number)
        nearest = np.square(pixels - pixels.mean(0)).sum(1).argmin()
        middles.append(pixels[nearest] + [span.start for span in box])
    return np.stack(middles)


def _means(scores: Sequence[Tensor], masks: Sequence[Tensor]) -> list[float]:
    """Return the mean of each map's scores on its mask, nan on an empty one."""
    means = [(s * m).sum(dtype=torch.float64) / m.sum() for s, m in zip(scores, masks, strict=True)]
    found: list[float] = torch.stack(means).tolist() if means else []
    return found


def _points_xy(sources: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return prompt coordinates f4 [P,2] in the image of pixels (y, x) [P,2] of a crop: the centers
    of the pixels that they come from (`sources`, the origins).
    """
    y, x = sources[:, points[:, 0], points[:, 1]]
    return (np.stack([x, y], 1) + 0.5).astype(np.float32)


def _maps(network: nn.Module, images: Tensor, scale: float) -> Tensor:
    """Return class maps of the crops at another scale, computed in evaluation mode."""
    bare: nn.Module = getattr(network, "module", network)
    with _evaluating(bare):
        maps, _ = bare(resize_by(images.float(), scale))
    return maps.float()


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode for a while; every module returns to its own mode, which batch
    normalization may not share with the rest.
    """
    modes: Mapping[nn.Module, bool] = {part: part.training for part in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
