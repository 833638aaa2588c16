"""Matching: the score as the equation says it, the best assignment, own images only."""

from itertools import permutations

import numpy as np
import pytest
import torch

from pipeline.instances.sparseinst.losses import Matches, Targets, match
from pipeline.instances.sparseinst.network import Outputs
from tests.support.sparseinst_cases import plain, random_outputs, random_targets


def scores(
    outputs: Outputs, targets: Targets, alpha: float = 0.8, beta: float = 0.2
) -> list[np.ndarray]:
    """C [N,T] of each image, a cell at a time."""
    found, start = [], 0
    for b, count in enumerate(targets.counts):
        table = np.zeros((outputs.logits.shape[1], count))
        for n, k in np.ndindex(*table.shape):
            m, t, v = outputs.masks[b, n].sigmoid(), targets.masks[start + k], targets.valid[b]
            dice = 2 * (v * m * t).sum() / ((v * m * m).sum() + (v * t * t).sum() + 1e-4)
            p = outputs.logits[b, n, int(targets.classes[start + k])].sigmoid()
            table[n, k] = float((dice**alpha * p**beta).detach())
        found.append(table)
        start += count
    return found


def pairs(matches: Matches) -> set[tuple[int, ...]]:
    return {tuple(row) for row in torch.stack(matches, 1).tolist()}


@pytest.mark.parametrize("alpha", [0.8, 0.3])
@pytest.mark.parametrize("counts", [(3, 0, 2), (1, 4, 5)])
def test_the_pairs_have_the_greatest_score(counts: tuple[int, ...], alpha: float) -> None:
    """More instances than the four queries included."""
    outputs, targets = random_outputs(3, 4), random_targets(counts)
    matches = match(outputs, targets, alpha, 1 - alpha)
    start = 0
    for b, table in enumerate(scores(outputs, targets, alpha, 1 - alpha)):
        mine = matches.image == b
        query, target = matches.query[mine].numpy(), matches.target[mine].numpy() - start
        assert len(set(query)) == len(set(target)) == len(query) == min(4, counts[b])
        assert ((target >= 0) & (target < max(1, counts[b]))).all()
        wide = table if counts[b] <= 4 else table.T
        best = max(
            sum(wide[n, k] for k, n in enumerate(chosen))
            for chosen in permutations(range(len(wide)), wide.shape[1])
        )
        assert table[query, target].sum() == pytest.approx(best, rel=1e-6)
        start += counts[b]


def test_images_do_not_depend_on_each_other() -> None:
    outputs, targets = random_outputs(2, 5), random_targets((3, 4))
    together = pairs(match(outputs, targets))
    for b, (first, last) in enumerate(((0, 3), (3, 7))):
        alone = Targets(
            [last - first],
            *(part[first:last] for part in (targets.classes, targets.weights, targets.masks)),
            targets.valid[b : b + 1],
        )
        one = match(Outputs(*(part[b : b + 1] for part in outputs)), alone)
        assert pairs(one) == {(0, n, k - first) for p, n, k in together if p == b}


def test_the_order_of_the_instances_changes_nothing() -> None:
    outputs, targets = random_outputs(1, 6), random_targets((5,))
    order = torch.tensor([3, 1, 4, 0, 2])
    shuffled = targets._replace(
        classes=targets.classes[order], weights=targets.weights[order], masks=targets.masks[order]
    )
    found = {(b, n, int(order[k])) for b, n, k in pairs(match(outputs, shuffled))}
    assert found == pairs(match(outputs, targets))


def test_cells_that_do_not_count_change_nothing() -> None:
    outputs, targets = random_outputs(1, 6), random_targets((5,))
    masks = outputs.masks.detach().clone()
    masks[:, :, 0, :3] = torch.randn(6, 3) * 20
    assert pairs(match(outputs._replace(masks=masks), targets)) == pairs(match(outputs, targets))


def test_without_instances_there_are_no_pairs() -> None:
    matches = match(random_outputs(2, 4), random_targets((0, 0)))
    assert all(part.shape == (0,) and part.dtype == torch.int64 for part in matches)


@pytest.mark.defect("sparseinst-10")
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_matched_all_the_same(value: float) -> None:
    """The published code stops with `matrix contains invalid numeric entries`; here the loss names
    what is wrong.
    """
    outputs = random_outputs(1, 4)
    broken = Outputs(*(torch.full_like(part, value) for part in outputs))
    assert len(match(broken, random_targets((3,))).query) == 3


def test_half_precision_is_matched_in_float32() -> None:
    half = Outputs(*(part.detach().bfloat16() for part in random_outputs(2, 8)))
    single, targets = Outputs(*(part.float() for part in half)), plain(random_targets((4, 3)))
    with torch.autocast("cpu", torch.bfloat16):
        found = pairs(match(half, targets))
    assert found == pairs(match(single, targets))
