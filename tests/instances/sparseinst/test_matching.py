"""Targets on the stride-4 grid, and the assignment of queries to them."""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.instances.sparseinst.losses import Matches, Targets, match, targets_of
from pipeline.instances.sparseinst.network import Outputs
from tests.support.sparseinst_cases import random_outputs, random_targets


def blocks(seed: int = 0, batch: int = 2, side: int = 64, instances: int = 5) -> Tensor:
    """Id maps of odd rectangles."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(batch, side, side, dtype=torch.uint8)
    for image in ids:
        for number in range(1, instances + 1):
            y, x = torch.randint(0, side - 20, (2,), generator=generator).tolist()
            image[y : y + 17, x : x + 13] = number
    return ids


def block_targets(ids: Tensor, resizing: str = "area", slots: int = 5) -> Targets:
    classes = torch.arange(slots, dtype=torch.uint8).expand(len(ids), -1).clone()
    return targets_of(ids, classes, torch.linspace(0.1, 1, slots).expand(len(ids), -1), resizing)


@pytest.mark.parametrize("resizing", ["area", "bilinear"])
def test_masks_are_those_that_torch_resizes(resizing: str) -> None:
    ids = blocks()
    targets = block_targets(ids, resizing)
    pairs = [(b, n) for b in range(2) for n in range(1, 6) if (ids[b] == n).any()]
    masks = torch.stack([(ids[b] == n).float() for b, n in pairs])[:, None]
    if resizing == "area":
        expected = F.avg_pool2d(masks, 4)
    else:
        expected = F.interpolate(masks, (16, 16), mode="bilinear", align_corners=False)
    assert torch.equal(targets.masks, expected[:, 0])
    assert targets.counts == [sum(b == image for b, _ in pairs) for image in range(2)]
    assert targets.classes.tolist() == [n - 1 for _, n in pairs]
    assert targets.weights.tolist() == pytest.approx([0.1 + 0.9 * (n - 1) / 4 for _, n in pairs])
    assert (targets.valid == 1).all()


@pytest.mark.defect("sparseinst-4")
@pytest.mark.parametrize(("side", "lost"), [(1, 12), (2, 7), (3, 0)])
def test_small_objects_vanish_only_in_the_published_resizing(side: int, lost: int) -> None:
    """At all 16 places relative to the grid; 75 %, 44 % and none."""
    ids = torch.zeros(16, 32, 32, dtype=torch.uint8)
    for place in range(16):
        y, x = 8 + place // 4, 8 + place % 4
        ids[place, y : y + side, x : x + side] = 1
    by_area = block_targets(ids, "area", 1)
    assert by_area.counts == [1] * 16
    assert (by_area.masks.sum((1, 2)) == side**2 / 16).all()
    assert sum(block_targets(ids, "bilinear", 1).counts) == 16 - lost


@pytest.mark.parametrize("resizing", ["area", "bilinear"])
def test_ignored_pixels_are_left_out_of_the_shares(resizing: str) -> None:
    ids = torch.zeros(1, 32, 32, dtype=torch.uint8)
    ids[0, :4, :4] = 1
    ids[0, 1, :4] = 255  # half of the middle, a quarter of the cell
    ids[0, 2, 2:4] = 0
    targets = block_targets(ids, resizing, 1)
    expected = {"area": (10 / 12, 0.75), "bilinear": (0.5, 0.5)}[resizing]
    assert float(targets.masks[0, 0, 0]) == pytest.approx(expected[0])
    assert float(targets.valid[0, 0, 0]) == expected[1]
    assert (targets.valid.flatten()[1:] == 1).all()


def test_padding_is_ignored() -> None:
    targets = block_targets(blocks(side=50))
    assert targets.masks.shape[1:] == targets.valid.shape[1:] == (16, 16)
    assert (targets.valid[:, :12, :12] == 1).all()
    assert (targets.valid[:, 12, :12] == 0.5).all()
    assert (targets.valid[:, 12, 12] == 0.25).all()
    assert (targets.valid[:, 13:] == 0).all()


def test_no_targets_without_pixels_or_class() -> None:
    ids = blocks(batch=1, instances=3)
    ids[ids == 2] = 255
    assert block_targets(ids).classes.tolist() == [0, 2]
    classes = torch.tensor([[0, 1, 255, 255]], dtype=torch.uint8)
    assert targets_of(ids, classes, torch.ones(1, 4)).classes.tolist() == [0]
    nothing = block_targets(torch.zeros(2, 32, 32, dtype=torch.uint8))
    assert nothing.counts == [0, 0]
    assert nothing.masks.shape == (0, 8, 8)
    assert targets_of(ids, torch.full((1, 4), 255, dtype=torch.uint8), torch.ones(1, 4)).counts == [
        0
    ]


def test_254_instances_fit() -> None:
    ids = (
        torch.arange(256, dtype=torch.uint8)
        .view(1, 16, 16)
        .repeat_interleave(4, 1)
        .repeat_interleave(4, 2)
    )
    targets = block_targets(ids, slots=254)
    assert targets.counts == [254]
    assert (targets.masks.sum((1, 2)) == 1).all()


def scores(outputs: Outputs, targets: Targets) -> list[np.ndarray]:
    """Return C [N,T] of each image, one cell at a time."""
    found, start = [], 0
    for b, count in enumerate(targets.counts):
        table = np.zeros((outputs.logits.shape[1], count))
        for n, k in np.ndindex(*table.shape):
            m, t, v = outputs.masks[b, n].sigmoid(), targets.masks[start + k], targets.valid[b]
            dice = 2 * (v * m * t).sum() / ((v * m * m).sum() + (v * t * t).sum() + 1e-4)
            p = outputs.logits[b, n, int(targets.classes[start + k])].sigmoid()
            table[n, k] = float((dice**0.8 * p**0.2).detach())
        found.append(table)
        start += count
    return found


def pairs(matches: Matches) -> set[tuple[int, ...]]:
    return {tuple(row) for row in torch.stack(matches, 1).tolist()}


@pytest.mark.defect("sparseinst-9.8")
@pytest.mark.parametrize("counts", [(3, 0, 2), (5, 1, 4)])
def test_pairs_have_the_greatest_score(counts: tuple[int, ...]) -> None:
    """Images after one with more instances than the four queries included."""
    outputs, targets = random_outputs(3, 4), random_targets(counts)
    matches = match(outputs, targets)
    start = 0
    for b, table in enumerate(scores(outputs, targets)):
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


@pytest.mark.defect("sparseinst-10")
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_outputs_that_are_not_finite_are_matched_all_the_same(value: float) -> None:
    """The published code stops with `matrix contains invalid numeric entries`; here the loss names
    what is wrong.
    """
    outputs = random_outputs(1, 4)
    broken = Outputs(*(torch.full_like(part, value) for part in outputs))
    assert len(match(broken, random_targets((3,))).query) == 3


def test_half_precision_is_matched_in_float32() -> None:
    half = Outputs(*(part.detach().bfloat16() for part in random_outputs(2, 100)))
    single, targets = Outputs(*(part.float() for part in half)), random_targets((60, 90))
    with torch.autocast("cpu", torch.bfloat16):
        found = pairs(match(half, targets))
    assert found == pairs(match(single, targets))
