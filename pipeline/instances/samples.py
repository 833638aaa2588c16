"""What instance models learn from: crops with their instances."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipeline.augmentation import as_image, training_crop
from pipeline.datasets.index import Index
from pipeline.label_map import IGNORE

MAX_INSTANCES = IGNORE - 1
"""Instances of a crop that a byte can number."""
OUTSIDE = -1
"""Id of the pixels that do not count, before a crop's instances are numbered anew."""


class Instances(NamedTuple):
    """Instances of a picture.

    ids: integer [H,W], 0 none, 1..N; classes: [N] from 0; weights: [N] in [0,1]; ignored: bool [H,W], pixels that do not count.
    """

    ids: np.ndarray
    classes: np.ndarray
    weights: np.ndarray
    ignored: np.ndarray | None = None


def among(
    ids: np.ndarray, classes: np.ndarray, weights: np.ndarray, semantic: np.ndarray, kept: np.ndarray
) -> Instances:
    """Those instances of a picture that are kept (bool [N]), of whose other objects nothing is said.

    ids: [H,W], 0 none, 1..N; semantic: label map [H,W]. What is ignored there, or of a class but in no kept instance, does not count:
    it is no background.
    """
    inside = np.concatenate([[False], kept])[ids]
    return Instances(ids, classes, weights, (semantic > 0) & ~inside)


class InstanceCrops:
    """Training samples of equal shapes, augmented anew at each access; a batch is their stack.

    image uint8 [3,S,S]; ids uint8 [S,S]: 0 none, 1..M, 255 does not count (ignored, or outside the picture); classes uint8 [M], 255
    for ids that are not used; weights float32 [M]. A crop's instances are numbered anew; of more than M the smallest are ignored.
    instances(name): those of a picture; resize: before the crop is cut; most: M, at most 254.
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
        return image.as_subclass(Tensor), *number_anew(cut[0].as_subclass(Tensor), given, self.most)


def number_anew(ids: Tensor, given: Instances, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The instances in a crop, int32 [S,S] with OUTSIDE, as the ids, classes and weights of InstanceCrops."""
    present, places, areas = ids.unique(return_inverse=True, return_counts=True)
    areas[present <= 0] = 0
    kept = areas.argsort(descending=True, stable=True)[: min(most, int((present > 0).sum()))].sort().values
    numbers = torch.full((len(present),), IGNORE, dtype=torch.uint8)
    numbers[present == 0] = 0
    numbers[kept] = torch.arange(1, len(kept) + 1, dtype=torch.uint8)
    rows = present[kept].long() - 1
    classes, weights = torch.full((most,), IGNORE, dtype=torch.uint8), torch.zeros(most)
    classes[: len(kept)] = torch.as_tensor(given.classes)[rows].byte()
    weights[: len(kept)] = torch.as_tensor(given.weights)[rows].float()
    return numbers[places], classes, weights
