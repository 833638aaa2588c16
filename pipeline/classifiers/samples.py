"""Training samples of the classifiers: crops that carry the tags of their picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.augmentation import LongSide, as_image, training_crop
from pipeline.datasets.index import Index
from pipeline.segmenters.prompting import Guidance


@dataclass(frozen=True, slots=True)
class Material:
    """What a classifier may learn from: pictures and tags of `index` under `names`, how crops are taken, and segments if there are any.

    resize: range of the longer side in pixels; crop: side of the square crop; mean: colour (0..1) that fills it up.
    """

    index: Index
    names: Sequence[str]
    resize: tuple[int, int]
    crop: int
    mean: tuple[float, ...]
    guidance: Guidance | None = None

    def augment(self, outside: int = 0) -> Callable[..., Any]:
        """The random resize, mirror and crop; pixels outside the picture are `outside` in masks that go along."""
        return training_crop(LongSide(*self.resize), self.crop, self.mean, outside)


class TaggedCrops:
    """(uint8 crop [3,S,S], tags [C]), augmented anew at each access."""

    def __init__(self, material: Material) -> None:
        self.material, self.augment = material, material.augment()

    def __len__(self) -> int:
        return len(self.material.names)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        name = self.material.names[number]
        index = self.material.index
        return self.augment(as_image(index.image(name))), torch.from_numpy(index.target(name))
