"""Training crops of images and label maps, with torchvision.transforms.v2 (IRN's augmentation,
section 1 of its specification).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from pipeline.core.artifacts import IGNORE

LONGEST = 16384
"""Longer side in pixels at which an enlargement ends: a strip of 20000 x 20 pixels would come to
gigabytes at a shorter side of 640.
"""


class RandomResize(v2.Transform, ABC):
    """Resize by a factor drawn from [smallest, largest] with torch's generator; bicubic, label maps
    nearest.

    Nothing is enlarged beyond a longer side of LONGEST.
    """

    def __init__(self, smallest: float, largest: float) -> None:
        super().__init__()
        self.smallest, self.largest = smallest, largest

    @abstractmethod
    def draw(self, height: int, width: int) -> float:
        """The factor for an image of this size."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The size that image and label map are given together."""
        height, width = v2.functional.get_size(flat_inputs[0])
        factor = min(self.draw(height, width), max(1.0, LONGEST / max(height, width)))
        return {"size": [max(1, round(height * factor)), max(1, round(width * factor))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize one image or label map."""
        return v2.functional.resize(
            inpt, params["size"], interpolation=InterpolationMode.BICUBIC, antialias=True
        )


class LongSide(RandomResize):
    """Resize so that the longer side is an integer drawn uniformly from [smallest, largest]."""

    def draw(self, height: int, width: int) -> float:
        """The drawn side over the longer one."""
        return int(torch.randint(int(self.smallest), int(self.largest) + 1, ())) / max(
            height, width
        )


class ShortSide(RandomResize):
    """Resize so that the shorter side is an integer drawn uniformly from [smallest, largest]."""

    def draw(self, height: int, width: int) -> float:
        """The drawn side over the shorter one."""
        return int(torch.randint(int(self.smallest), int(self.largest) + 1, ())) / min(
            height, width
        )


class RandomScale(RandomResize):
    """Resize by a factor drawn uniformly from [smallest, largest]."""

    def draw(self, height: int, width: int) -> float:
        """The drawn factor."""
        return self.smallest + (self.largest - self.smallest) * float(torch.rand(()))


def training_crop(
    resize: v2.Transform, crop: int, mean: tuple[float, ...], outside: int = IGNORE
) -> Callable[..., Any]:
    """Resize, flip with probability 1/2, and take a random crop x crop window.

    A smaller image is placed at a random offset, the rest filled with the mean color (0..1) and
    with `outside` in masks.
    """
    fill = {tv_tensors.Image: [round(255 * value) for value in mean], tv_tensors.Mask: outside}
    return v2.Compose(
        [resize, v2.RandomHorizontalFlip(), v2.RandomCrop(crop, pad_if_needed=True, fill=fill)]
    )


def as_image(image: np.ndarray) -> tv_tensors.Image:
    """uint8 [H,W,3] to torchvision's uint8 image [3,H,W]."""
    return tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))


def as_mask(labels: np.ndarray) -> tv_tensors.Mask:
    """uint8 [H,W] to torchvision's mask [1,H,W]."""
    return tv_tensors.Mask(torch.from_numpy(np.ascontiguousarray(labels))[None])
