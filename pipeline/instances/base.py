"""What an instance model finds in an image, and the size at which it looks at it.

Instance masks as artifacts hold them: exclusive ids in one map (pseudo-labels), or masks that may
overlap, eight pixels a byte.

What instance models learn from: crops with their instances.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipeline.core.artifacts import IGNORE, Record
from pipeline.data.augmentation import as_image, training_crop
from pipeline.data.index import Index


class Detections(NamedTuple):
    """Instances of an image: masks bool [N,H,W], which may overlap, classes int64 [N], scores [N]
    in [0,1]; N may be 0.
    """

    masks: Tensor
    classes: Tensor
    scores: Tensor


def none_found(height: int, width: int) -> Detections:
    """The result of an image in which nothing is found."""
    return Detections(
        torch.zeros(0, height, width, dtype=torch.bool),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0),
    )


def resized(images: Tensor, sides: Sequence[int]) -> Tensor:
    """Images [B,3,H,W] in 0..255 with a shorter side of sides[0] pixels, or less where the longer
    one would exceed sides[1].
    """
    low, high = sorted(images.shape[2:])
    factor = min(sides[0] / low, sides[1] / high)
    size = [max(1, round(side * factor)) for side in images.shape[2:]]
    return F.interpolate(
        images.float(), size, mode="bilinear", align_corners=False, antialias=factor < 1
    )


def masks_of(record: Record) -> np.ndarray:
    """The instance masks bool [N,H,W] of an image out of labels.h5 or predictions.h5, in the order
    of its classes and scores.
    """
    instances = record["instances"]
    if instances.ndim == 2:
        return (
            instances
            == np.arange(1, len(record["classes"]) + 1, dtype=instances.dtype)[:, None, None]
        )
    return unpack(instances, record["semantic"].shape[1])


def exclusive_record(record: Record, least: float = 0.3) -> Record:
    """A record to draw: instances that may overlap become an id map of those that score at least
    `least`; others stay as they are.
    """
    if "instances" not in record or record["instances"].ndim == 2:
        return record
    kept = record["scores"] >= least
    ids = exclusive(masks_of(record)[kept], record["scores"][kept])
    return {
        **record,
        "instances": ids,
        "classes": record["classes"][kept],
        "scores": record["scores"][kept],
    }


def pack(masks: np.ndarray) -> np.ndarray:
    """Masks bool [N,H,W] as bits uint8 [N,H,ceil(W/8)], the first pixel in the highest bit."""
    return np.packbits(masks, axis=2)


def unpack(bits: np.ndarray, width: int) -> np.ndarray:
    """Bits uint8 [N,H,ceil(width/8)] as masks bool [N,H,width]."""
    return np.unpackbits(bits, axis=2, count=width).view(bool)


def exclusive(masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """One id map uint16 [H,W] of masks bool [N,H,W], n + 1 for mask n, 0 none: of those that
    overlap the highest score is in front.

    scores: [N]; of equal ones the first is in front.
    """
    ids = np.zeros(masks.shape[1:], np.uint16)
    for number in np.argsort(-np.asarray(scores), kind="stable")[::-1]:
        ids[masks[number]] = number + 1
    return ids


MAX_INSTANCES = IGNORE - 1
"""Instances of a crop that a byte can number."""
OUTSIDE = -1
"""Id of the pixels that do not count, before a crop's instances are numbered again."""


class Instances(NamedTuple):
    """Instances of an image.

    ids: integer [H,W], 0 none, 1..N; classes: [N] from 0; weights: [N] in [0,1]; ignored: bool
    [H,W], pixels that do not count.
    """

    ids: np.ndarray
    classes: np.ndarray
    weights: np.ndarray
    ignored: np.ndarray | None = None


def select_instances(
    ids: np.ndarray,
    classes: np.ndarray,
    weights: np.ndarray,
    semantic: np.ndarray,
    kept: np.ndarray,
) -> Instances:
    """Those instances of an image that are kept (bool [N]), of whose other objects nothing is said.

    ids: [H,W], 0 none, 1..N; semantic: label map [H,W]. What is ignored there, or of a class but in
    no kept instance, does not count: it is no background.
    """
    inside = np.concatenate([[False], kept])[ids]
    return Instances(ids, classes, weights, (semantic > 0) & ~inside)


class InstanceCrops(Dataset[tuple[Tensor, ...]]):
    """Training samples of equal shapes, augmented again at each access; a batch is their stack.

    image uint8 [3,S,S]; ids uint8 [S,S]: 0 none, 1..M, 255 does not count (ignored, or outside the
    image); classes uint8 [M], 255 for ids that are not used; weights float32 [M]. A crop's
    instances are numbered again; of more than M the smallest are ignored. instances(name): those of
    an image; resize: before the crop is cut; most: M, at most 254.
    """

    def __init__(
        self,
        index: Index,
        names: Sequence[str],
        instances: Callable[[str], Instances],
        resize: v2.Transform,
        crop: int,
        mean: tuple[float, ...],
        most: int = 100,
    ) -> None:
        if not 1 <= most <= MAX_INSTANCES:
            raise ValueError(f"{most} instances a crop: use 1 to {MAX_INSTANCES}")
        self.index, self.names, self.instances, self.most = index, list(names), instances, most
        self.augment = training_crop(resize, crop, mean, OUTSIDE)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        name = self.names[number]
        given = self.instances(name)
        ids = given.ids.astype(np.int32)
        if given.ignored is not None:
            ids[given.ignored] = OUTSIDE
        image, cut = self.augment(
            as_image(self.index.image(name)), tv_tensors.Mask(torch.from_numpy(ids)[None])
        )
        return image.as_subclass(Tensor), *number_again(
            cut[0].as_subclass(Tensor), given, self.most
        )


def number_again(ids: Tensor, given: Instances, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The instances in a crop, int32 [S,S] with OUTSIDE, as the ids, classes and weights of
    InstanceCrops.
    """
    present, places, areas = ids.unique(return_inverse=True, return_counts=True)
    areas[present <= 0] = 0
    kept = (
        areas.argsort(descending=True, stable=True)[: min(most, int((present > 0).sum()))]
        .sort()
        .values
    )
    numbers = torch.full((len(present),), IGNORE, dtype=torch.uint8)
    numbers[present == 0] = 0
    numbers[kept] = torch.arange(1, len(kept) + 1, dtype=torch.uint8)
    rows = present[kept].long() - 1
    classes, weights = torch.full((most,), IGNORE, dtype=torch.uint8), torch.zeros(most)
    classes[: len(kept)] = torch.as_tensor(given.classes)[rows].byte()
    weights[: len(kept)] = torch.as_tensor(given.weights)[rows].float()
    return numbers[places], classes, weights
