"""Random outputs and targets for the tests of this folder."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.instances.sparseinst.losses import Targets
from pipeline.instances.sparseinst.network import Outputs


def random_outputs(
    batch: int,
    queries: int,
    classes: int = 3,
    side: int = 6,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    shapes = (queries, classes), (queries, side, side + 2), (queries,)
    tensors = [torch.randn(batch, *shape, generator=generator, dtype=dtype) for shape in shapes]
    return Outputs(*(tensor.requires_grad_() for tensor in tensors))


def random_targets(
    counts: Sequence[int], classes: int = 3, side: int = 6, seed: int = 1
) -> Targets:
    """Soft masks, unequal weights, and cells that count in part or not at all."""
    generator = torch.Generator().manual_seed(seed)
    total, grid = sum(counts), (side, side + 2)
    masks = (torch.rand(total, *grid, generator=generator) * 2 - 0.5).clamp(0, 1)
    valid = (torch.rand(len(counts), *grid, generator=generator) * 1.5).clamp(0, 1)
    valid[:, 0, :3] = 0
    labels = torch.randint(0, classes, (total,), generator=generator)
    return Targets(list(counts), labels, torch.rand(total, generator=generator), masks, valid)


def plain(targets: Targets) -> Targets:
    """The same where everything counts and weighs alike."""
    return targets._replace(
        weights=torch.ones_like(targets.weights), valid=torch.ones_like(targets.valid)
    )


def double(targets: Targets) -> Targets:
    return Targets(
        targets.counts,
        targets.classes,
        *(part.double() for part in targets[2:] if isinstance(part, Tensor)),
    )
