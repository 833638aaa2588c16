"""Class activation maps from several scales and mirrors (IRN's specification, section 3)."""

import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.backbones import passes
from pipeline.store import Record

EPSILON = 1e-5
"""Added to a map's maximum before dividing, as published; an all-zero map stays zero."""


class ClassMaps(Protocol):
    """A network that gives class maps, as every classifier method has one."""

    def maps(self, normalised: Tensor, tags: Tensor) -> Tensor:
        """Class maps [B,C,h,w] at stride 16 of normalised pictures [B,3,H,W] with tags [B,C]."""

    def merge(self, one: Tensor, other: Tensor) -> Tensor:
        """The maps of a picture and of its mirror image as one."""


@torch.inference_mode()
def activation_maps(
    network: ClassMaps, normalised: Tensor, tags: Tensor, scales: Sequence[float], mirror: bool
) -> Tensor:
    """Sum over scales of the rectified class maps, each merged with the mirrored picture's, on the stride-4 grid.

    normalised: [B,3,H,W], 0 = mean colour; tags: 0/1 [B,C]; returns [B,C,h,w], h = (H-1)//4+1, not yet divided by the maximum.
    Each map is sampled where the stride-4 cells really lie, so that no scale and no mirror is shifted against another (the
    published code squeezes the padded grid instead, specification section 3). With `mirror`, a mirrored picture has mirrored maps
    (of a width that divides by 4; the cells of others begin at the left).
    """
    height, width = normalised.shape[2:]
    total: Tensor | None = None
    for scale in scales:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        scaled = normalised
        if size != (height, width):
            scaled = F.interpolate(normalised, size, mode="bicubic", align_corners=False, antialias=scale < 1)
        padded = pad_to_multiple(torch.cat([scaled, scaled.flip(3)]) if mirror else scaled, 16)
        parts = zip(passes(padded), passes(torch.cat([tags, tags]) if mirror else tags), strict=True)
        maps = torch.cat([network.maps(part, its_tags) for part, its_tags in parts]).float().relu()
        views = [
            _sample(part, (height, width), size, tuple(padded.shape[2:]), mirrored=turn == 1)
            for turn, part in enumerate(maps.chunk(2) if mirror else (maps,))
        ]
        merged = functools.reduce(network.merge, views)
        total = merged if total is None else total + merged
    assert total is not None
    return total


def normalise(maps: Tensor) -> Tensor:
    """Divide each class's map [...,h,w] by its own maximum; the result lies in [0,1]."""
    return maps / (maps.amax((-2, -1), keepdim=True) + EPSILON)


def cam_records(maps: Tensor, tags: Sequence[Sequence[int]], size: tuple[int, int]) -> list[Record]:
    """What is stored of pictures of one size (H, W): the normalised maps [K,h,w] of each one's K tags out of those of all, [B,C,h,w].

    All maps leave the device at once.
    """
    owners = [picture for picture, own in enumerate(tags) for _ in own]
    classes = [tag for own in tags for tag in own]
    places = torch.tensor([owners, classes], dtype=torch.long).to(maps.device, non_blocking=True)
    chosen = normalise(maps[places[0], places[1]]).cpu().numpy()
    stacks = np.split(chosen, np.cumsum([len(own) for own in tags])[:-1])
    return [
        {"cams": stack, "labels": np.array(own, np.uint8), "size": np.array(size, np.int32)}
        for stack, own in zip(stacks, tags, strict=True)
    ]


def pad_to_multiple(normalised: Tensor, multiple: int) -> Tensor:
    """Pad [B,C,H,W] with zeros at the right and the bottom until both sides divide by `multiple`."""
    height, width = normalised.shape[2:]
    return F.pad(normalised, (0, -width % multiple, 0, -height % multiple))


def _sample(
    maps: Tensor, size: tuple[int, int], scaled: tuple[int, int], padded: tuple[int, ...], mirrored: bool
) -> Tensor:
    """Bilinear values of `maps` at the centres of the stride-4 cells of a picture of `size`.

    The maps cover a `padded` canvas whose first `scaled` pixels are the picture, or its mirror image; outside their centres the
    border value holds.
    """
    axes = []
    for full, small, canvas, turned in zip(size, scaled, padded, (False, mirrored), strict=True):
        centres = torch.arange((full - 1) // 4 + 1, device=maps.device, dtype=torch.float32) * 4 + 2
        centres = full - centres if turned else centres
        axes.append(centres * (small / full) / canvas * 2 - 1)
    rows, columns = torch.meshgrid(axes[0], axes[1], indexing="ij")
    grid = torch.stack([columns, rows], -1).expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
