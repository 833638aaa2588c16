"""What the instances of a batch look like on the stride-4 grid that masks are predicted on.

`area` takes the share of a cell's 4x4 pixels that belong to the instance, so no instance vanishes. `bilinear`, as published, sees the
middle 2x2 of them alone: of objects of 2x2 pixels it loses 44 % (specification, section 4).
"""

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.label_map import IGNORE
from pipeline.sparseinst.network import MASK_STRIDE, MULTIPLE

RESIZING = {"area": range(4), "bilinear": range(1, 3)}
"""Rows and columns of a cell that are looked at."""


class Targets(NamedTuple):
    """The T instances of B pictures, one picture's after the other's.

    counts: instances of each picture; classes: int64 [T]; weights: [T] in [0,1]; masks: [T,h,w] in [0,1], the instance's share of a
    cell's pixels that count; valid: [B,h,w] in [0,1], the share of a cell's pixels that count.
    """

    counts: list[int]
    classes: Tensor
    weights: Tensor
    masks: Tensor
    valid: Tensor


def from_id_maps(ids: Tensor, classes: Tensor, weights: Tensor, resizing: str = "area") -> Targets:
    """The instances of id maps uint8 [B,H,W]: 0 none, 1..254 instances, 255 pixels that do not count.

    classes: uint8 [B,M], of ids 1..M, 255 for those not used, which come last; weights: [B,M] in [0,1]. Maps are padded to multiples
    of 32 as pictures are, with pixels that do not count. An instance of which no pixel is seen is left out. ValueError for another
    resizing.
    """
    if resizing not in RESIZING:
        raise ValueError(f"no resizing {resizing!r} of targets: use one of {', '.join(RESIZING)}")
    height, width = ids.shape[1:]
    padded = F.pad(ids, (0, -width % MULTIPLE, 0, -height % MULTIPLE), value=IGNORE)
    used = classes != IGNORE
    slots = int(used.any(0).sum())
    ignored = torch.zeros_like(padded[:, ::MASK_STRIDE, ::MASK_STRIDE])
    hits = ignored.new_zeros(len(ids), slots, *ignored.shape[1:])  # bytes: a cell's 16 pixels fit
    numbers = torch.arange(1, slots + 1, dtype=ids.dtype, device=ids.device).view(-1, 1, 1)
    offsets = list(product(RESIZING[resizing], repeat=2))
    for down, right in offsets:
        pixels = padded[:, down::MASK_STRIDE, right::MASK_STRIDE].contiguous()
        hits += pixels[:, None] == numbers
        ignored += pixels == IGNORE
    seen = (hits.flatten(2).amax(2) > 0) & used[:, :slots]
    picture, slot = seen.nonzero().unbind(1)
    counting = (len(offsets) - ignored).float()
    return Targets(
        seen.sum(1).tolist(),
        classes[picture, slot].long(),
        weights[picture, slot].float(),
        hits[picture, slot].float().div_(counting.clamp(min=1)[picture]),
        counting / len(offsets),
    )
