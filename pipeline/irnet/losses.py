"""The pair losses that teach IRNet boundaries and displacements (IRNet, sections 4.2 to 4.5).

Both losses sum over millions of pairs, yet neither needs a pair in memory:

* The affinity of a pair is 1 minus the largest boundary value on its line. Its loss therefore
  depends on one cell alone, the line's winner. Ranking all cells once turns "largest value" into
  "largest rank", which also identifies the cell; what remains is to count how often each cell wins
  for each kind of pair, and loss and gradient are sums over cells.
* A displacement should point from each cell of an object to one common place. With E = D + position
  on foreground and E = D on background, the losses are |E_i - E_j| over pairs of one label. The
  derivative is a sum of signs per cell, G, and since |u| = sign(u) u the loss itself is the sum
  over cells of G E.

The counts depend on the predictions only through their order, so they need no gradient and autograd
does the rest.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from pipeline.core.artifacts import IGNORE
from pipeline.irnet.paths import directions, line_maxima

EPSILON = 1e-5
"""Keeps logarithms and empty means finite, as in the authors' code."""

BACKGROUND, FOREGROUND, NEGATIVE, UNRELATED = range(4)
"""Kinds of pairs: both background, both of one class, different labels, and ignored pairs."""


def pair_losses(
    edge_logits: Tensor,
    displacement: Tensor,
    labels: Tensor,
    radius: int = 10,
    mean_over_ranks: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return IRNet's four loss terms, each a scalar averaged over its pairs in the whole batch.

    A pair counts when both ends are labeled, its source lies in rows 0..h-radius and columns
    radius-1..w-radius, and its direction is in the half disc.

    Args:
        edge_logits: [B,1,h,w], any floating type, computed in at least float32.
        displacement: [B,2,h,w] (y, x) in cells, likewise.
        labels: uint8 [B,h,w], 0 background, c + 1 class c, 255 ignored.
        radius: of the half disc in cells.
        mean_over_ranks: turns this rank's numbers of pairs [3] (background, foreground, negative)
            into those to average over: means, because DDP averages gradients over ranks. None for
            one rank.

    Returns:
        `pos`, `neg`, `disp_fg` and `disp_bg`; a term without pairs is 0.

    Raises:
        ValueError: for a grid too small for the radius.
    """
    height, width = labels.shape[1:]
    if height < radius or width < 2 * radius - 1:
        raise ValueError(
            f"a grid of {height}x{width} cells has no pair of radius {radius}: use a crop of at "
            f"least {radius}x{2 * radius - 1} cells, or a smaller radius"
        )
    foreground = (labels != 0).unsqueeze(1)
    pointed = displacement.to(_at_least_float32(displacement))
    pointed = pointed + _positions(pointed) * foreground
    wins, pulls = _pair_sums(edge_logits.detach(), pointed.detach(), labels, radius)
    number = wins.sum(dim=(1, 2, 3))
    if mean_over_ranks is not None:
        number = mean_over_ranks(number)
    number = number.to(edge_logits.device, torch.float64)
    return edge_losses(edge_logits, wins, number) | displacement_losses(
        pointed, pulls, foreground, number
    )


def total_loss(terms: Mapping[str, Tensor]) -> Tensor:
    """Return the loss to minimize: half the sum of the four terms of `pair_losses` (scalar)."""
    return (terms["pos"] + terms["neg"] + terms["disp_fg"] + terms["disp_bg"]) / 2


def edge_losses(edge_logits: Tensor, wins: Tensor, number: Tensor) -> dict[str, Tensor]:
    """Return `pos` and `neg` (section 4.4): cross-entropy of a = 1 - the boundary at the line's
    winner.

    edge_logits [B,1,h,w]; wins [3,B,h,w] how many pairs of each kind a cell decides; number [3]
    pairs of each kind. pos = 1/2 mean -ln(a + eps) over background pairs + 1/2 over foreground
    pairs; neg = mean -ln(1 - a + eps).
    """
    logits = edge_logits[:, 0].to(_at_least_float32(edge_logits))
    dissuade = -torch.log(torch.sigmoid(-logits) + EPSILON)
    persuade = -torch.log(torch.sigmoid(logits) + EPSILON)
    weights = wins.to(logits.dtype)
    mean = 1 / (number + EPSILON).to(logits.dtype)
    within = [(weights[kind] * dissuade).sum() * mean[kind] for kind in (BACKGROUND, FOREGROUND)]
    return {
        "pos": (within[0] + within[1]) / 2,
        "neg": (weights[NEGATIVE] * persuade).sum() * mean[NEGATIVE],
    }


def displacement_losses(
    pointed: Tensor, pulls: Tensor, foreground: Tensor, number: Tensor
) -> dict[str, Tensor]:
    """Return `disp_fg` and `disp_bg` (section 4.3): mean L1 distance of where two cells point.

    pointed [B,2,h,w] is D, on `foreground` cells [B,1,h,w] plus the cell's own place; pulls
    [B,2,h,w] the derivative of the summed distances in it; number [3] pairs of each kind.
    Foreground cells of one class within the radius should point at the same place, |(D_i - D_j) -
    (x_j - x_i)|; background cells should not differ, |D_i - D_j|.
    """
    energy = (pulls * pointed).double()
    mean = 1 / (2 * number + EPSILON)
    terms = {
        "disp_fg": (energy * foreground).sum() * mean[FOREGROUND],
        "disp_bg": (energy * ~foreground).sum() * mean[BACKGROUND],
    }
    return {name: term.to(pointed.dtype) for name, term in terms.items()}


def _pair_sums(
    edge_logits: Tensor, pointed: Tensor, labels: Tensor, radius: int
) -> tuple[Tensor, Tensor]:
    """Return what is summed over all pairs.

    First the pairs of each kind whose largest boundary value lies at a cell, int32 [3,B,h,w]: the
    sort breaks ties, so exactly one cell of a line wins. Then the derivative of the summed L1
    distances with respect to `pointed` [B,2,h,w]: whole numbers of its type.
    """
    order = edge_logits.flatten().argsort()
    cells = order.numel()
    ranks = torch.empty(cells, dtype=torch.int32, device=order.device)
    ranks[order] = torch.arange(cells, dtype=torch.int32, device=order.device)
    wins = torch.zeros(4 * cells, dtype=torch.int32, device=order.device)
    ones = wins.new_ones(()).expand(cells)
    flat = pointed.transpose(0, 1).flatten(1)
    pulls = torch.zeros_like(flat)
    difference: Tensor | None = None
    maxima = line_maxima(ranks, labels.shape[-1], radius)
    for ((sources, targets), kinds), (_, winner) in zip(
        _pair_kinds(labels, radius), maxima, strict=True
    ):
        bins = kinds.int().mul_(cells).add_(winner).long()
        wins.scatter_add_(0, bins, ones[: bins.numel()])
        difference = torch.sub(flat[:, sources], flat[:, targets], out=difference)
        difference.sign_().mul_((kinds < NEGATIVE).to(flat.dtype))
        pulls[:, sources].add_(difference)
        pulls[:, targets].sub_(difference)
    by_cell = wins.view(4, cells)[:UNRELATED, ranks.long()].view(UNRELATED, *labels.shape)
    return by_cell, pulls.view(2, pointed.shape[0], *pointed.shape[2:]).transpose(0, 1)


def _pair_kinds(labels: Tensor, radius: int) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """Yield per direction where sources and targets lie in the flattened batch, and each pair's
    kind (uint8).

    Slices of the flattened batch are views of one piece, but they also hold sources too near the
    border or pairs across two images: those count as UNRELATED. Arithmetic on bytes instead of
    `where`, which is ten times slower on CPU.
    """
    *_, height, width = labels.shape
    reach = radius - 1
    inside = torch.full_like(labels, IGNORE)
    window = (slice(None), slice(0, height - reach), slice(reach, width - reach))
    inside[window] = labels[window]
    source, target = inside.flatten(), labels.flatten()
    if_equal = torch.where(source == IGNORE, UNRELATED, (source != 0).byte()).byte()
    if_different, other = (
        torch.where(ends == IGNORE, UNRELATED, NEGATIVE).byte() for ends in (source, target)
    )
    sources = slice(reach, labels.numel() - reach * (width + 1))
    for dy, dx in directions(radius):
        offset = dy * width + dx
        targets = slice(sources.start + offset, sources.stop + offset)
        equal = (source[sources] == target[targets]).byte()
        kinds = torch.maximum(if_different[sources], other[targets])
        kinds -= equal * (kinds - if_equal[sources])
        yield (sources, targets), kinds


def _positions(field: Tensor) -> Tensor:
    """Return the coordinates [2,h,w] of a field's cells, counted from the middle to keep rounding
    small.
    """
    axes = (
        torch.arange(size, dtype=field.dtype, device=field.device) - size // 2
        for size in field.shape[-2:]
    )
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def _at_least_float32(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
