"""Random outputs and targets of SparseInst."""

from collections.abc import Sequence

import torch

from pipeline.instances.sparseinst.losses import Targets
from pipeline.instances.sparseinst.network import Outputs

PUBLISHED = {"classification": 2.0, "dice": 2.0, "mask": 5.0, "objectness": 1.0, "semantic": 0.0}
"""Weights of the loss terms in the authors' code."""


def random_outputs(batch: int, queries: int) -> Outputs:
    """Float64 outputs for 3 classes and 6 x 8 cells."""
    generator = torch.Generator().manual_seed(0)
    shapes = (queries, 3), (queries, 6, 8), (queries,)
    tensors = [torch.randn(batch, *s, generator=generator, dtype=torch.float64) for s in shapes]
    return Outputs(*(tensor.requires_grad_() for tensor in tensors))


def random_targets(counts: Sequence[int]) -> Targets:
    """Soft masks, unequal weights, and cells that count in part or not at all."""
    generator = torch.Generator().manual_seed(1)
    total = sum(counts)
    masks = (torch.rand(total, 6, 8, generator=generator) * 2 - 0.5).clamp(0, 1)
    valid = (torch.rand(len(counts), 6, 8, generator=generator) * 1.5).clamp(0, 1)
    valid[:, 0, :3] = 0
    labels = torch.randint(0, 3, (total,), generator=generator)
    return Targets(list(counts), labels, torch.rand(total, generator=generator), masks, valid)
