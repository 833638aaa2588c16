"""The random walk on the similarity of a frozen network's features, which needs no IRNet.

From f_i, the features F of cell i without their mean over the image, at length 1:

    a_ij = max(0, f_i . f_j)^beta,   T_ij = a_ij / sum_k a_kj,   M' = M T^steps

so that a map spreads over what looks like its seeds, wherever in the image that is (IRNet, section
5.2, has such a T from boundaries between neighbors; the affinity of all cells is that of CLIP-ES,
Lin et al., CVPR 2023, section 3.3, there from attention). Maps are averaged to the features' grid
and interpolated back. T of N cells takes 4 N^2 bytes: 4 MB for 512x512 pixels at stride 16.

There is a map per class, not per instance: instances are the connected parts of what it wins.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.core.artifacts import Record
from pipeline.core.device import to_device, to_numpy
from pipeline.irnet.walk import background_seeds, walked_record

STRIDE = 4
"""Pixels per cell of the maps."""


class SimilarityInput(NamedTuple):
    """What the walk of an image starts from.

    cams: [K,h,w]; labels: their class ids [K]; features: [D,y,x]; ratio: stride-4 cells per side of
    a feature cell; size: of the image (H,W).
    """

    cams: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    ratio: int
    size: np.ndarray


def similarity_input(cams: Record, stored: Record) -> SimilarityInput:
    """Collect the walk's input from an image's records of cams.h5 and features.h5."""
    ratio = int(stored["stride"][0]) // STRIDE
    return SimilarityInput(cams["cams"], cams["labels"], stored["features"], ratio, cams["size"])


def walk_by_similarity(
    batch: Sequence[SimilarityInput],
    device: torch.device,
    *,
    beta: float,
    steps: int,
    background: float,
) -> list[Record]:
    """Return records of walk.h5 of images of any sizes: maps f2 [K,h,w], the class of each [K], the
    background's map f2 [h,w], the image's size.

    beta, steps: See similarity_walk; background: exponent, see background_seeds.
    """
    cams = to_device([item.cams for item in batch], np.float32, device)
    features = to_device([item.features for item in batch], np.float32, device)
    walked = [
        similarity_walk(
            torch.cat([maps, background_seeds(maps, background)]),
            own,
            item.ratio,
            beta=beta,
            steps=steps,
        )
        for maps, own, item in zip(cams, features, batch, strict=True)
    ]
    return [
        walked_record(maps, item.labels, item.size)
        for maps, item in zip(to_numpy(walked), batch, strict=True)
    ]


@torch.no_grad()
def similarity_walk(
    maps: Tensor, features: Tensor, ratio: int, *, beta: float, steps: int
) -> Tensor:
    """Return the maps [K,h,w] after `steps` steps of the walk.

    Args:
        maps: Seeds [K,h,w].
        features: [D,y,x]; a cell covers ratio x ratio cells of the maps, the first from the corner.
        ratio: See there.
        beta: Exponent > 0 that sharpens similarities.
        steps: Of the walk.
    """
    height, width = maps.shape[1:]
    rows, columns = features.shape[1:]
    outside = (0, columns * ratio - width, 0, rows * ratio - height)
    seeds, inside = F.pad(maps[:, None], outside), F.pad(maps.new_ones(1, height, width), outside)
    cells = (F.avg_pool2d(seeds, ratio) / F.avg_pool2d(inside, ratio)).flatten(1)
    matrix = transitions(features, beta)
    for _ in range(steps):
        cells = cells @ matrix
    spread = F.interpolate(
        cells.view(-1, 1, rows, columns), scale_factor=ratio, mode="bilinear", align_corners=False
    )
    return spread[:, 0, :height, :width]


def transitions(features: Tensor, beta: float) -> Tensor:
    """Return T [N,N] of features [D,y,x] with N = yx cells; its columns sum to 1."""
    cells = features.flatten(1)
    cells = F.normalize(cells - cells.mean(1, keepdim=True), dim=0)
    # a cell like the mean, which has no direction, stays where it is
    affinity = (cells.T @ cells).clamp(min=0).fill_diagonal_(1).pow(beta)
    return affinity / affinity.sum(0)
