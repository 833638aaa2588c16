"""Class activation maps from several scales and flips (Ahn et al., CVPR 2019, section 3)."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.classifiers.base import Classifier, normalize
from pipeline.core.artifacts import Record
from pipeline.nets.backbones import micro_batches, pad_to_multiple, resize_by


@torch.inference_mode()
def activation_maps(
    network: Classifier, normalized: Tensor, tags: Tensor, scales: Sequence[float], flip: bool
) -> Tensor:
    """Sum the rectified class maps over scales on the stride-4 grid, each merged with the flipped
    image's.

    Every map is sampled at the positions of the stride-4 cells in the image, so that no scale and
    no flip is shifted (the published code squeezes the padded grid instead). With `flip`, the maps
    of a flipped image are the flipped maps, if 4 divides its width: cells start at the left.

    Args:
        network: Classifier in evaluation mode.
        normalized: Images [B,3,H,W], 0 = mean color.
        tags: 0/1 [B,C], the classes in each image.
        scales: Factors that the images are resized by.
        flip: Whether to merge each map with that of the horizontally flipped image.

    Returns:
        Maps [B,C,h,w] with h = (H-1)//4+1, not yet divided by their maximum.
    """
    height, width = normalized.shape[2:]
    total: Tensor | None = None
    for scale in scales:
        scaled = resize_by(normalized, scale, "bicubic")
        padded = pad_to_multiple(
            torch.cat([scaled, scaled.flip(3)]) if flip else scaled, network.backbone.stride
        )
        parts = zip(
            micro_batches(padded),
            micro_batches(torch.cat([tags, tags]) if flip else tags),
            strict=True,
        )
        maps = torch.cat([network.maps(part, its_tags) for part, its_tags in parts]).float().relu()
        views = [
            _sample(part, (height, width), scaled.shape[2:], padded.shape[2:], flipped=number == 1)
            for number, part in enumerate(maps.chunk(2) if flip else (maps,))
        ]
        merged = functools.reduce(network.merge_flipped, views)
        total = merged if total is None else total + merged
    assert total is not None
    return total


def cam_records(maps: Tensor, tags: Sequence[Sequence[int]], size: tuple[int, int]) -> list[Record]:
    """Return the records of layout `cams` of images of one size (H, W).

    maps: [B,C,h,w] of all classes; tags: class ids of each image, whose normalized maps [K,h,w] are
    stored. All maps leave the device in one copy.
    """
    owners = [image for image, own in enumerate(tags) for _ in own]
    classes = [tag for own in tags for tag in own]
    places = torch.tensor([owners, classes], dtype=torch.long).to(maps.device, non_blocking=True)
    chosen = normalize(maps[places[0], places[1]]).cpu().numpy()
    stacks = np.split(chosen, np.cumsum([len(own) for own in tags])[:-1])
    return [
        {"cams": stack, "labels": np.array(own, np.uint8), "size": np.array(size, np.int32)}
        for stack, own in zip(stacks, tags, strict=True)
    ]


def _sample(
    maps: Tensor,
    size: tuple[int, int],
    scaled: tuple[int, ...],
    padded: tuple[int, ...],
    flipped: bool,
) -> Tensor:
    """Interpolate `maps` at the centers of the stride-4 cells of an image of `size`, bilinearly.

    The maps cover a `padded` canvas whose first `scaled` pixels are the image, or the flipped
    image; beyond their outermost centers the border value holds.
    """
    axes = []
    for full, small, canvas, reverse in zip(size, scaled, padded, (False, flipped), strict=True):
        centers = torch.arange((full - 1) // 4 + 1, device=maps.device, dtype=torch.float32) * 4 + 2
        centers = full - centers if reverse else centers
        axes.append(centers * (small / full) / canvas * 2 - 1)
    rows, columns = torch.meshgrid(axes[0], axes[1], indexing="ij")
    grid = torch.stack([columns, rows], -1).expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
