"""IRNet's pair losses, forward and backward, against gathering the boundary of every line."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import Benchmark, Measurement
from pipeline.irnet.losses import EPSILON, pair_losses, total_loss
from pipeline.irnet.paths import directions, line_cells

RADIUS = 10


def batch(images: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return boundary logits, displacements and label maps in blocks, some of them ignored."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(
        0, 4, (images, side // 16, side // 16), generator=generator, dtype=torch.uint8
    )
    labels = (
        torch.where(blocks == 3, 255, blocks)
        .byte()
        .repeat_interleave(16, 1)
        .repeat_interleave(16, 2)
    )
    logits = torch.randn(images, 1, side, side, generator=generator) - 1
    displacement = torch.randn(images, 2, side, side, generator=generator)
    return logits.requires_grad_(), displacement.requires_grad_(), labels


def ours(images: int, side: int) -> Callable[[], object]:
    logits, displacement, labels = batch(images, side)
    return lambda: total_loss(pair_losses(logits, displacement, labels, RADIUS)).backward()


def gathered(images: int, side: int) -> Callable[[], object]:
    logits, displacement, labels = batch(images, side)
    tables = _line_tables(side, side)
    return lambda: _gathered_loss(logits, displacement, labels, tables).backward()


def _line_tables(height: int, width: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return per line length the flat cells of all lines [D,n,length], their targets [D,n] and (dy,
    dx) [D,2].
    """
    reach = RADIUS - 1
    cells = torch.arange(height * width).view(height, width)
    sources = cells[: height - reach, reach : width - reach].flatten()
    groups: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for direction in directions(RADIUS):
        groups[len(line_cells(*direction))].append(direction)
    tables = []
    for group in groups.values():
        offsets = torch.tensor(
            [[y * width + x for y, x in line_cells(*direction)] for direction in group]
        )
        ends = torch.tensor([dy * width + dx for dy, dx in group])
        tables.append(
            (
                sources[None, :, None] + offsets[:, None],
                sources + ends[:, None],
                torch.tensor(group, dtype=torch.float32),
            )
        )
    return tables


def _gathered_loss(
    logits: Tensor,
    displacement: Tensor,
    labels: Tensor,
    tables: list[tuple[Tensor, Tensor, Tensor]],
) -> Tensor:
    boundary, field, label = (
        torch.sigmoid(logits).flatten(1),
        displacement.flatten(2),
        labels.flatten(1),
    )
    reach, (height, width) = RADIUS - 1, labels.shape[1:]
    source = (
        torch.arange(height * width)
        .view(height, width)[: height - reach, reach : width - reach]
        .flatten()
    )
    affinity = torch.cat([1 - boundary[:, lines].amax(-1) for lines, _, _ in tables], 1)
    moved = torch.cat(
        [field[:, :, source][:, :, None] - field[:, :, targets] for _, targets, _ in tables], 2
    )
    way = torch.cat([ways for *_, ways in tables]).T[None, :, :, None]
    here = label[:, source][:, None]
    there = torch.cat([label[:, targets] for _, targets, _ in tables], 1)
    valid, equal = (here < 255) & (there < 255), here == there
    bg, fg, neg = (
        (valid & kind).float() for kind in (equal & (here == 0), equal & (here > 0), ~equal)
    )
    within, between = -torch.log(affinity + EPSILON), -torch.log(1 + EPSILON - affinity)
    pos = (
        (within * bg).sum() / (bg.sum() + EPSILON) + (within * fg).sum() / (fg.sum() + EPSILON)
    ) / 2
    terms = {
        "pos": pos,
        "neg": (between * neg).sum() / (neg.sum() + EPSILON),
        "disp_fg": ((moved - way).abs() * fg[:, None]).sum() / (2 * fg.sum() + EPSILON),
        "disp_bg": (moved.abs() * bg[:, None]).sum() / (2 * bg.sum() + EPSILON),
    }
    return total_loss(terms)


WHAT = "pair losses, forward and backward"
SIZE = "{} images 128x128, radius 10"
BENCHMARKS = (
    Benchmark(
        WHAT,
        SIZE.format(2),
        partial(ours, 2, 128),
        partial(gathered, 2, 128),
        "gather of all lines (torch), same run",
    ),
    Benchmark(
        WHAT,
        SIZE.format(16),
        partial(ours, 16, 128),
        Measurement(4.7, 5000),
        "published code, measured on two cores",
    ),
)
