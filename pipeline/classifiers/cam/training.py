"""The plain classifier's loss, the multi-label soft margin:

    loss = -1/C sum_c [ y_c ln sigma(logits_c) + (1 - y_c) ln sigma(-logits_c) ]

Differences from the published code: the momentum is what the parameters say (there it is lost),
classes are any number.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.classifiers.base import TaggedCrops, TrainingData
from pipeline.core.trainer import LossFn, Samples, Step


def samples(material: TrainingData) -> Samples:
    """Crops with tags."""
    return TaggedCrops(material)


def objective(material: TrainingData) -> LossFn:
    """The loss of a batch (images [B,3,S,S], targets [B,C])."""

    def losses(
        network: nn.Module, batch: tuple[Tensor, Tensor], step: Step
    ) -> Mapping[str, Tensor]:
        """The multi-label loss of the network's logits."""
        images, targets = batch
        return {"loss": F.multilabel_soft_margin_loss(network(images), targets)}

    return losses
