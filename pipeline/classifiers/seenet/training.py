"""SeeNet's loss, the sum of its branches' (multi-label soft margin, see the plain classifier's)
with equal weights:

    loss = BCE(S_A, y) + BCE(S_B, y) + BCE(S_C, 0)

What branch A attends to, B must do without, and C must not recognize anything in what A leaves as
background. All branches learn from the first step on, as the authors say they do; their training
code was never published.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.classifiers.base import TaggedCrops, TrainingData
from pipeline.core.trainer import LossFn, Samples, Step


def samples(material: TrainingData) -> Samples:
    """Crops with tags."""
    return TaggedCrops(material)


def objective(material: TrainingData) -> LossFn:
    """The losses `initial`, `erased` and `background` of a batch (images [B,3,S,S], targets [B,C])."""

    def losses(
        network: nn.Module, batch: tuple[Tensor, Tensor], step: Step
    ) -> Mapping[str, Tensor]:
        """`loss`, the sum, and the term of each branch."""
        images, targets = batch
        initial, erased, background = network(images, targets)
        terms = {
            "initial": F.multilabel_soft_margin_loss(initial.float(), targets),
            "erased": F.multilabel_soft_margin_loss(erased.float(), targets),
            "background": F.multilabel_soft_margin_loss(
                background.float(), torch.zeros_like(targets)
            ),
        }
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    return losses
