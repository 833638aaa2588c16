"""No instance model: its package exists because DVC depends on the chosen method's folder."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.instances.base import Detections, InstanceModel


class NoInstances(InstanceModel):
    """A model without parameters that detects nothing (`instance.method: none`), so that stage
    predictions needs no special case.
    """

    def __init__(self, classes: int, backbone: str = "", weights: str = "none") -> None:
        super().__init__()

    @staticmethod
    def loss_fn(*args: Any, **options: Any) -> Callable[..., Mapping[str, Tensor]]:
        """Raise TypeError, as there is nothing to train."""
        raise TypeError("instance.method: none has no loss")

    def predict(
        self, images: Sequence[Tensor] | Tensor, *, score: float, sides: Sequence[int] | None = None
    ) -> list[Detections]:
        """Return no detections for any image [3,H,W]."""
        nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
        return [
            Detections(torch.zeros(0, *image.shape[1:], dtype=torch.bool), *nothing)
            for image in images
        ]
