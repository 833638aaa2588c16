"""No instance model: with `instance.method: none` predictions hold semantic maps alone."""

from collections.abc import Sequence

from torch import Tensor

from pipeline.instances.base import Detections, InstanceModel, no_detections


class NoInstances(InstanceModel):
    """A model without parameters that detects nothing, so that stage predictions needs no special
    case.
    """

    def __init__(self, classes: int, backbone: str = "", weights: str = "none") -> None:
        super().__init__()

    def predict(
        self, images: Sequence[Tensor] | Tensor, *, score: float, sides: Sequence[int] | None = None
    ) -> list[Detections]:
        """Return no detections for any image [3,H,W]."""
        return [no_detections(*image.shape[1:]) for image in images]
