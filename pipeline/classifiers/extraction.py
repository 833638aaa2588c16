"""Class activation maps from several scales and flips (IRN's specification, section 3)."""

import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.core.artifacts import Record
from pipeline.nets.backbones import micro_batches

EPSILON = 1e-5
"""Added to a map's maximum before dividing, as published; an all-zero map stays zero."""


class ClassMaps(Protocol):
    """A network that gives class maps, as every classifier method has one."""

    def maps(self, normalized: Tensor, tags: Tensor) -> Tensor:
        """Class maps [B,C,h,w] at stride 16 of normalized images [B,3,H,W] with tags [B,C]."""

    def merge(self, one: Tensor, other: Tensor) -> Tensor:
        """The maps of an image and of its flip image as one."""


@torch.inference_mode()
def activation_maps(
    network: ClassMaps, normalized: Tensor, tags: Tensor, scales: Sequence[float], flip: bool
) -> Tensor:
    """Sum over scales of the rectified class maps, each merged with the flipped image's, on the
    stride-4 grid.

    normalized: [B,3,H,W], 0 = mean color; tags: 0/1 [B,C]; returns [B,C,h,w], h = (H-1)//4+1, not
    yet divided by the maximum. Each map is sampled where the stride-4 cells really lie, so that no
    scale and no flip is shifted against another (the published code squeezes the padded grid
    instead, specification section 3). With `flip`, a flipped image has flipped maps (of a width
    that divides by 4; the cells of others begin at the left).
    """
    height, width = normalized.shape[2:]
    total: Tensor | None = None
    for scale in scales:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        scaled = normalized
        if size != (height, width):
            scaled = F.interpolate(
                normalized, size, mode="bicubic", align_corners=False, antialias=scale < 1
            )
        padded = pad_to_multiple(torch.cat([scaled, scaled.flip(3)]) if flip else scaled, 16)
        parts = zip(
            micro_batches(padded),
            micro_batches(torch.cat([tags, tags]) if flip else tags),
            strict=True,
        )
        maps = torch.cat([network.maps(part, its_tags) for part, its_tags in parts]).float().relu()
        views = [
            _sample(part, (height, width), size, tuple(padded.shape[2:]), flipped=turn == 1)
            for turn, part in enumerate(maps.chunk(2) if flip else (maps,))
        ]
        merged = functools.reduce(network.merge, views)
        total = merged if total is None else total + merged
    assert total is not None
    return total


def normalize(maps: Tensor) -> Tensor:
    """Divide each class's map [...,h,w] by its own maximum; the result lies in [0,1]."""
    return maps / (maps.amax((-2, -1), keepdim=True) + EPSILON)


def cam_records(maps: Tensor, tags: Sequence[Sequence[int]], size: tuple[int, int]) -> list[Record]:
    """What is stored of images of one size (H, W): the normalized maps [K,h,w] of each one's K tags
    out of those of all, [B,C,h,w].

    All maps leave the device at once.
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


def pad_to_multiple(normalized: Tensor, multiple: int) -> Tensor:
    """Pad [B,C,H,W] with zeros at the right and the bottom until both sides divide by `multiple`."""
    height, width = normalized.shape[2:]
    return F.pad(normalized, (0, -width % multiple, 0, -height % multiple))


def _sample(
    maps: Tensor,
    size: tuple[int, int],
    scaled: tuple[int, int],
    padded: tuple[int, ...],
    flipped: bool,
) -> Tensor:
    """Bilinear values of `maps` at the centers of the stride-4 cells of an image of `size`.

    The maps cover a `padded` canvas whose first `scaled` pixels are the image, or its flip image;
    outside their centers the border value holds.
    """
    axes = []
    for full, small, canvas, turned in zip(size, scaled, padded, (False, flipped), strict=True):
        centers = torch.arange((full - 1) // 4 + 1, device=maps.device, dtype=torch.float32) * 4 + 2
        centers = full - centers if turned else centers
        axes.append(centers * (small / full) / canvas * 2 - 1)
    rows, columns = torch.meshgrid(axes[0], axes[1], indexing="ij")
    grid = torch.stack([columns, rows], -1).expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
