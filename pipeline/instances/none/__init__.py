"""No instance model: its package exists because DVC depends on the chosen method's folder."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.instances.base import Detections, InstanceModel


class NoInstances(InstanceModel):
    """A model without parameters that detects nothing (`instance.method: none`), so that stage
    predictions needs no special case.
    """

    def __init__(self, classes: int, backbone: str = "", weights: str = "none") -> None:
        super().__init__()

    def predict(
        self, images: Sequence[Tensor] | Tensor, *, score: float, sides: Sequence[int] | None = None
    ) -> list[Detections]:
        """Return no detections for any image [3,H,W]."""
        nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
        return [
            Detections(torch.zeros(0, *image.shape[1:], dtype=torch.bool), *nothing)
            for image in images
        ]
