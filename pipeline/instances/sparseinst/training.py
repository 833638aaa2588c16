"""SparseInst's loss of a batch of crops with their instances."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.core.trainer import LossFn, Step
from pipeline.instances.sparseinst.losses import (
    Weights,
    from_id_maps,
    losses,
    match,
    semantic_loss,
    total_loss,
)


def objective(
    *,
    loss: Mapping[str, float],
    targets: str,
    weighted: bool,
    alpha: float = 0.8,
    beta: float = 0.2,
    iou_threshold: float = 0.4,
) -> LossFn:
    """The weighted sum of the terms of a batch of InstanceCrops; what normalizes them spans all
    ranks.

    loss: weights of the terms, see Weights; targets: how masks are brought to a quarter of the
    size, `area` or `bilinear`; weighted: whether instances count by their weights; alpha, beta: of
    the matching score; iou_threshold: see losses.
    """
    weights = Weights(**loss)

    def terms_of(network: nn.Module, batch: Sequence[Tensor], step: Step) -> Mapping[str, Tensor]:
        """The terms and their sum `loss`, scalars."""
        images, ids, classes, scores = batch
        outputs, semantic = network(images)
        wanted = from_id_maps(
            ids, classes, scores if weighted else torch.ones_like(scores), targets
        )
        matches = match(outputs, wanted, alpha, beta)
        pairs = step.ranks.mean(matches.query.new_full((), len(matches.query)).float()).clamp(min=1)
        terms = losses(outputs, wanted, matches, pairs, iou_threshold)
        if semantic is not None:
            terms["semantic"] = semantic_loss(semantic, wanted, step.ranks.mean(wanted.valid.sum()))
        return {"loss": total_loss(terms, weights), **terms}

    return terms_of
