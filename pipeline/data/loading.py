"""Images on their way to the networks."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.data.index import Index


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Loads images by id in worker processes; images of equal `size` may be stacked."""

    index: Index

    def load(self, name: str) -> np.ndarray:
        """uint8 [H,W,3]."""
        return self.index.image(name)

    def size(self, name: str) -> Hashable:
        """(H, W) of an image."""
        return self.index[name].height, self.index[name].width


def stack(images: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Images uint8 [H,W,3] of one size as a uint8 tensor [B,3,H,W] on the device."""
    return torch.from_numpy(np.stack(images)).to(device, non_blocking=True).permute(0, 3, 1, 2)
