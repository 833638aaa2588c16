"""SAM's segment-everything as one label map: a grid of points, filters, suppression, and the
smallest segment owns a pixel.

The masks are those of the package's automatic generator without crops; full-size masks exist only
for the few that are looked at in one step. Kept are low-resolution logits, whose size does not grow
with the image's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from pipeline.segmenters.sam_decoder import Attended, stability


class PointDecoder(Protocol):
    """What is asked of sam_decoder.Decoder here."""

    def attend(self, embeddings: Tensor, points_xy: Tensor, labels: Tensor) -> Attended:
        """Run the transformer once for each prompt."""
        ...

    def logits(self, attended: Attended, chosen: Tensor) -> Tensor:
        """Low-resolution logits of the chosen masks."""
        ...

    def resize(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits at the size (H,W) of the image."""
        ...

    def resize_at_once(self, size: tuple[int, int]) -> int:
        """How many masks of that size are handled together."""
        ...

    def extent(self, size: tuple[int, int]) -> tuple[int, int]:
        """The part of the logits (h,w) that an image of that size covers."""
        ...


@dataclass(frozen=True, slots=True)
class Filters:
    """Which masks stay (appendix B of the paper; the defaults are the generator's).

    pred_iou: predicted IoU must be above it, 0 = no filter; stability: stability score must reach
    it, 0 = no filter; stability_offset: in logits; box_nms: of two masks whose boxes' IoU is above
    it the one with the lower predicted IoU goes; min_area: holes and islands of fewer pixels are
    filled and removed, 0 = off.
    """

    pred_iou: float = 0.88
    stability: float = 0.95
    stability_offset: float = 1.0
    box_nms: float = 0.7
    min_area: int = 0


class Masks(NamedTuple):
    """n masks: low-resolution logits [n,h,w], predicted IoU [n], stability [n], area [n] in pixels,
    box_xyxy [n,4] (ends inclusive).
    """

    logits: Tensor
    iou: Tensor
    stability: Tensor
    area: Tensor
    box_xyxy: Tensor

    def take(self, indices: Tensor) -> "Masks":
        """The masks of those indices, or where a bool [n] is True."""
        return Masks(*(values[indices] for values in self))


class SegmentMap(NamedTuple):
    """segments: int64 [H,W], 0 none, ids 1..S; stability, iou: float32 [S] in [0,1], in id order."""

    segments: Tensor
    stability: Tensor
    iou: Tensor


def segment_everything(
    decoder: PointDecoder,
    embeddings: Tensor,
    size: tuple[int, int],
    *,
    points_per_side: int,
    points_per_batch: int,
    filters: Filters,
) -> SegmentMap:
    """The segment-everything map of an image of `size` (H,W) from its embeddings [1,D,h,w].

    THE SMALLEST SEGMENT COVERING A PIXEL OWNS IT; of equal areas the one with the higher predicted
    IoU. Segments that own no pixel are dropped; ids run from the largest segment to the smallest.
    The generator's filter of boxes near a crop's edge has no effect where the crop is the image, so
    it is not here.
    """
    points = point_grid(points_per_side, decoder.extent(size)).to(
        embeddings.device, non_blocking=True
    )
    batches = [
        _survivors(decoder, embeddings, some, size, filters)
        for some in points.split(points_per_batch)
    ]
    masks = _suppressed(batches, filters.box_nms)
    if filters.min_area:
        masks = _after_mending(decoder, masks, size, filters)
    return _painted(decoder, masks, size, filters.min_area)


def point_grid(points_per_side: int, extent: tuple[int, int]) -> Tensor:
    """Grid points [n*n,2], x then y, row by row, in SAM's input of `extent` (H,W); float64, as the
    generator hands them on.
    """
    side = torch.from_numpy((np.arange(points_per_side) + 0.5) / points_per_side)
    y, x = torch.meshgrid(side, side, indexing="ij")
    return torch.stack([x * extent[1], y * extent[0]], -1).flatten(0, 1)


def box_xyxy_of(masks: Tensor) -> Tensor:
    """Boxes [n,4] of masks [n,H,W] from the first to the last column and row that they touch; zeros
    for an empty mask.
    """
    sides = []
    for axis in (1, 2):
        touched = masks.any(axis).byte()
        sides.append((touched.argmax(1), touched.shape[1] - 1 - touched.flip(1).argmax(1)))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], 1) * masks.flatten(1).any(1)[:, None]


def mended(mask: np.ndarray, min_area: int) -> tuple[np.ndarray, bool]:
    """Fill holes and remove islands of fewer than `min_area` pixels (8-connected) of a bool mask
    [H,W].

    Returns the mask and whether there was any. If every island is that small, the largest stays.
    """
    background, had_holes = _without_small(~mask, min_area)
    kept, had_islands = _without_small(~background, min_area)
    if had_islands and not kept.any():
        kept = _largest(~background)
    return kept, had_holes or had_islands


def _survivors(
    decoder: PointDecoder,
    embeddings: Tensor,
    points: Tensor,
    size: tuple[int, int],
    filters: Filters,
) -> Masks:
    """The masks of some points that pass the filters; those below the predicted IoU are never
    upscaled.
    """
    labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
    attended = decoder.attend(embeddings, points[:, None], labels)
    chosen = torch.ones_like(attended.iou, dtype=torch.bool)
    if filters.pred_iou > 0:
        chosen = attended.iou > filters.pred_iou
    logits, iou = decoder.logits(attended, chosen), attended.iou[chosen]
    parts = [
        _measured(some, i, decoder.resize(some, size), filters.stability_offset)
        for some, i in zip(
            *(values.split(decoder.resize_at_once(size)) for values in (logits, iou)), strict=True
        )
    ]
    masks = Masks(*(torch.cat(values) for values in zip(*parts, strict=True)))
    return masks.take(masks.stability >= filters.stability) if filters.stability > 0 else masks


def _suppressed(batches: Sequence[Masks], box_nms: float) -> Masks:
    """What suppression leaves of all batches, by falling predicted IoU; the logits of all masks are
    never copied together.
    """
    _, iou, stable, area, boxes = zip(*batches, strict=True)
    kept = nms(torch.cat(boxes).float(), torch.cat(iou), box_nms)
    every = [logits for batch in batches for logits in batch.logits]
    logits = torch.stack([every[i] for i in kept.tolist()]) if len(kept) else batches[0].logits[:0]
    return Masks(logits, *(torch.cat(values)[kept] for values in (iou, stable, area, boxes)))


def _measured(logits: Tensor, iou: Tensor, resized: Tensor, offset: float) -> Masks:
    binary = resized > 0
    return Masks(logits, iou, stability(resized, offset), binary.sum((1, 2)), box_xyxy_of(binary))


def _full_size(
    decoder: PointDecoder, logits: Tensor, size: tuple[int, int], min_area: int
) -> Iterator[tuple[Tensor, bool]]:
    """Each mask [H,W], mended if there is a least area, and whether that changed it."""
    for some in logits.split(decoder.resize_at_once(size)):
        for mask in decoder.resize(some, size) > 0:
            if min_area:
                whole, changed = mended(mask.cpu().numpy(), min_area)
                yield torch.from_numpy(whole).to(mask.device, non_blocking=True), changed
            else:
                yield mask, False


def _after_mending(
    decoder: PointDecoder, masks: Masks, size: tuple[int, int], filters: Filters
) -> Masks:
    """Take areas and boxes again and suppress again, at the same threshold; masks that needed no
    mending come first.

    The mended masks are not kept but made again when they are painted, so that memory does not grow
    with their number.
    """
    boxes, areas, intact = [], [], []
    for mask, changed in _full_size(decoder, masks.logits, size, filters.min_area):
        boxes.append(box_xyxy_of(mask[None])[0])
        areas.append(mask.sum())
        intact.append(float(not changed))
    if not boxes:
        return masks
    masks = masks._replace(box_xyxy=torch.stack(boxes), area=torch.stack(areas))
    return masks.take(
        nms(
            masks.box_xyxy.float(),
            torch.tensor(intact).to(masks.iou.device, non_blocking=True),
            filters.box_nms,
        )
    )


def _painted(
    decoder: PointDecoder, masks: Masks, size: tuple[int, int], min_area: int
) -> SegmentMap:
    """Paint the masks over one another, the smallest last."""
    masks = masks.take(painting_order(masks.area, masks.iou))
    owner = torch.zeros(size, dtype=torch.int64, device=masks.iou.device)
    for number, (mask, _) in enumerate(_full_size(decoder, masks.logits, size, min_area), start=1):
        owner.masked_fill_(mask, number)
    owners = owner.unique()
    owners = owners[owners > 0]
    ids = torch.zeros(len(masks.iou) + 1, dtype=torch.int64, device=owner.device)
    ids[owners] = torch.arange(1, len(owners) + 1, device=owner.device)
    kept = masks.take(owners - 1)
    return SegmentMap(ids[owner], kept.stability, kept.iou.clamp(0, 1))


def painting_order(area: Tensor, iou: Tensor) -> Tensor:
    """Indices [n] from the largest area to the smallest; of equal areas the higher predicted IoU
    comes last, then the first given.
    """
    order = torch.arange(len(area), device=area.device).flip(0)
    order = order[iou[order].argsort(stable=True)]
    return order[area[order].argsort(stable=True, descending=True)]


def _without_small(mask: np.ndarray, min_area: int) -> tuple[np.ndarray, bool]:
    """The mask without its small regions, and whether it had some."""
    _, regions, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] < min_area
    small[0] = False  # what lies outside the mask
    return mask & ~small[regions], bool(small.any())


def _largest(mask: np.ndarray) -> np.ndarray:
    _, regions, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return regions == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
