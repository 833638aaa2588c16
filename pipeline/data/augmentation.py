"""Training crops of images and label maps with torchvision.transforms.v2, as in IRN's code.

Resize by a random factor, flip with probability 1/2, change colors if asked to (S2C's code), take a
random crop.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from pipeline.core.artifacts import IGNORE
from pipeline.data.index import Index

MAX_SIDE = 16384
"""Longest side in pixels that an image is enlarged to: one of 20000 x 20 pixels would take
gigabytes at a shorter side of 640.
"""


class RandomResize(v2.Transform, ABC):
    """Resize by a factor drawn from [smallest, largest] with torch's generator.

    Images are resized bicubically, label maps by nearest neighbor, neither beyond MAX_SIDE.
    """

    def __init__(self, smallest: float, largest: float) -> None:
        super().__init__()
        self.smallest, self.largest = smallest, largest

    @abstractmethod
    def draw(self, height: int, width: int) -> float:
        """Draw the factor for an image of this size."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the common size of image and label map."""
        height, width = v2.functional.get_size(flat_inputs[0])
        factor = min(self.draw(height, width), max(1.0, MAX_SIDE / max(height, width)))
        return {"size": [max(1, round(height * factor)), max(1, round(width * factor))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize one image or label map, both about the centers of pixels: torchvision's own choice
        for label maps shifts them by up to half a pixel of the result.
        """
        is_mask = isinstance(inpt, tv_tensors.Mask)
        how = InterpolationMode.NEAREST_EXACT if is_mask else InterpolationMode.BICUBIC
        return v2.functional.resize(inpt, params["size"], interpolation=how, antialias=True)


class LongSide(RandomResize):
    """Resize so that the longer side is an integer drawn uniformly from [smallest, largest]."""

    def draw(self, height: int, width: int) -> float:
        """Draw a side and divide it by the longer one."""
        side = int(torch.randint(int(self.smallest), int(self.largest) + 1, ()))
        return side / max(height, width)


class ShortSide(RandomResize):
    """Resize so that the shorter side is drawn uniformly from smallest, smallest + step, ...,
    largest.

    longest: limit of the longer side in pixels, which the shorter one then falls below; 0 for none.
    """

    def __init__(self, smallest: int, largest: int, longest: int = 0, step: int = 1) -> None:
        super().__init__(smallest, largest)
        self.longest, self.sides = longest, range(smallest, largest + 1, step)

    def draw(self, height: int, width: int) -> float:
        """Draw a side and divide it by the shorter one, within the limit of the longer one."""
        side = self.sides[int(torch.randint(len(self.sides), ()))]
        limit = self.longest or math.inf
        return min(side / min(height, width), limit / max(height, width))


class RandomScale(RandomResize):
    """Resize by a factor drawn uniformly from [smallest, largest]."""

    def draw(self, height: int, width: int) -> float:
        """Draw the factor."""
        return self.smallest + (self.largest - self.smallest) * float(torch.rand(()))


def color_changes(
    jitter: Sequence[float], probability: float, grayscale: float
) -> list[v2.Transform]:
    """Build the transforms that change an image's colors and leave label maps alone.

    One of probability 0 is left out, so that it draws nothing from the generator.

    Args:
        jitter: strengths of brightness, contrast, saturation and hue, as of v2.ColorJitter.
        probability: share of the images that are jittered; grayscale: of those turned to gray.
    """
    changes: list[v2.Transform] = []
    if probability:
        changes.append(v2.RandomApply([v2.ColorJitter(*jitter)], probability))
    if grayscale:
        changes.append(v2.RandomGrayscale(grayscale))
    return changes


def training_crop(
    resize: v2.Transform,
    crop: int,
    mean: tuple[float, ...],
    outside: int = IGNORE,
    colors: Sequence[v2.Transform] = (),
) -> Callable[..., Any]:
    """Build the transform: resize, flip with probability 1/2, change colors, take a random crop.

    Args:
        resize: such as LongSide(320, 640).
        crop: side of the square crop in pixels; smaller images are padded at a random offset.
        mean: RGB color of the padding, 0..1.
        outside: label of the padding.
        colors: see color_changes; the padding keeps its color.
    """
    fill = {tv_tensors.Image: [round(255 * value) for value in mean], tv_tensors.Mask: outside}
    cut = v2.RandomCrop(crop, pad_if_needed=True, fill=fill)
    return v2.Compose([resize, v2.RandomHorizontalFlip(), *colors, cut])


def as_image(image: np.ndarray) -> tv_tensors.Image:
    """Convert uint8 [H,W,3] to torchvision's uint8 image [3,H,W]."""
    return tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))


def as_mask(maps: np.ndarray) -> tv_tensors.Mask:
    """Convert maps [C,H,W] of any type to torchvision's mask [C,H,W]."""
    return tv_tensors.Mask(torch.from_numpy(np.ascontiguousarray(maps)))


@dataclass(frozen=True, slots=True)
class Emphasis:
    """Pixels that weigh more than others in a loss, whose weight is 1.

    said: returns whether they do, bool [H,W], by id and (H,W).
    """

    said: Callable[[str, tuple[int, int]], np.ndarray]
    weight: float


@dataclass(eq=False)
class Crops(Dataset[tuple[Any, ...]]):
    """Training samples that are augmented again at each access.

    Attributes:
        index, names: the dataset and the ids of its images to learn from.
        resize, crop, mean, colors: see training_crop.
        emphasis: pixels that weigh more than others; then samples end with their weights.
    """

    OUTSIDE: ClassVar[int] = IGNORE
    """Value of the maps' padding beyond the image."""
    index: Index
    names: Sequence[str]
    resize: v2.Transform
    crop: int
    mean: tuple[float, ...]
    colors: Sequence[v2.Transform] = field(default=(), kw_only=True)
    emphasis: Emphasis | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.augment = training_crop(self.resize, self.crop, self.mean, self.OUTSIDE, self.colors)

    def __len__(self) -> int:
        return len(self.names)

    def augmented(self, name: str, maps: np.ndarray) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the crops uint8 [3,S,S] of an image and [C,S,S] of its maps [C,H,W] of any type,
        and weights f4 [S,S] of the pixels if there is an emphasis.
        """
        image, emphasis = self.index.image(name), self.emphasis
        if emphasis is not None:
            said = emphasis.said(name, (image.shape[0], image.shape[1]))
            maps = np.concatenate([maps, said[None].astype(maps.dtype)])
        sample = self.augment(as_image(image), as_mask(maps))
        cut, found = (part.as_subclass(Tensor) for part in sample)
        if emphasis is None:
            return cut, found, []
        return cut, found[:-1], [1 + (emphasis.weight - 1) * (found[-1] == 1).float()]
