"""The loss terms against the equations, and what holds for any batch and any number of ranks."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.core.trainer import LossFn
from pipeline.instances.sparseinst import SparseInst, TrainingOutputs
from pipeline.instances.sparseinst.losses import (
    Matches,
    Targets,
    loss_terms,
    match,
    semantic_loss,
    targets_of,
    total_loss,
)
from pipeline.instances.sparseinst.network import Outputs
from tests.support.sparseinst_cases import PUBLISHED, random_outputs, random_targets
from tests.support.steps import one_of_two_ranks, single_rank


def terms_of(outputs: Outputs, targets: Targets, pairs: float = 1.0) -> dict[str, Tensor]:
    return loss_terms(outputs, targets, match(outputs, targets), torch.tensor(pairs))


def slow_terms(outputs: Outputs, targets: Targets, matches: Matches) -> dict[str, float]:
    """The sums as the equations say them, one value at a time."""
    sums = dict.fromkeys(("classification", "dice", "mask", "objectness"), 0.0)
    matched = {(b, n): k for b, n, k in torch.stack(matches, 1).tolist()}
    batch, queries, classes = outputs.logits.shape
    for b in range(batch):
        for n in range(queries):
            k = matched.get((b, n))
            weight = 1.0 if k is None else float(targets.weights[k])
            for c in range(classes):
                p = 1 / (1 + math.exp(-float(outputs.logits[b, n, c])))
                if k is not None and c == int(targets.classes[k]):
                    sums["classification"] -= weight * 0.25 * (1 - p) ** 2 * math.log(p)
                else:
                    sums["classification"] -= weight * 0.75 * p**2 * math.log(1 - p)
            if k is None:
                continue
            mt = mm = tt = entropy = shared = either = area = 0.0
            cells = (outputs.masks[b, n], targets.masks[k], targets.valid[b])
            for x, t, v in zip(*(part.flatten().tolist() for part in cells), strict=True):
                m = 1 / (1 + math.exp(-x))
                mt, mm, tt, area = mt + v * m * t, mm + v * m * m, tt + v * t * t, area + v
                entropy -= v * (t * math.log(m) + (1 - t) * math.log(1 - m))
                shared += v * (m >= 0.4 and t > 0.5)
                either += v * (m >= 0.4 or t > 0.5)
            iou, o = shared / (either + 1e-6), 1 / (1 + math.exp(-float(outputs.objectness[b, n])))
            sums["dice"] += weight * (1 - 2 * mt / (mm + tt + 1e-4))
            sums["mask"] += weight * entropy / area
            sums["objectness"] -= weight * (iou * math.log(o) + (1 - iou) * math.log(1 - o))
    return sums


@pytest.mark.defect("sparseinst-9.4", "sparseinst-9.8")
@pytest.mark.parametrize("counts", [(3, 0, 2), (7, 1, 5)])
def test_terms_are_the_equations(counts: tuple[int, ...]) -> None:
    """With soft masks, weights, partly ignored cells, and more instances than queries."""
    with torch.no_grad():
        outputs, targets = random_outputs(3, 4), random_targets(counts)
        weights, masks, valid = (part.double() for part in targets[2:])
        targets = targets._replace(weights=weights, masks=masks, valid=valid)
        matches = match(outputs, targets)
        terms = loss_terms(outputs, targets, matches, torch.tensor(2.5))
        slow = slow_terms(outputs, targets, matches)
    assert {name: 2.5 * float(term) for name, term in terms.items()} == pytest.approx(
        slow, rel=1e-8
    )
    factors = (0.5, 3.0, 7.0, 11.0)
    total = factors @ torch.stack([*terms.values()]).numpy()
    found = total_loss(terms, dict(zip(terms, factors, strict=True)))
    assert float(found) == pytest.approx(float(total))


@pytest.mark.defect("sparseinst-9.7")
def test_without_instances_the_loss_is_finite_and_teaches_the_classes() -> None:
    outputs = random_outputs(2, 4)
    terms = terms_of(outputs, random_targets((0, 0)))
    total_loss(terms, PUBLISHED).backward()
    assert [float(term.detach()) > 0 for term in terms.values()] == [True, False, False, False]
    assert outputs.logits.grad is not None
    assert (outputs.logits.grad > 0).all()
    for part in outputs[1:]:
        assert part.grad is not None
        assert not part.grad.any()


def test_half_precision_is_computed_in_float32() -> None:
    half = Outputs(*(part.detach().bfloat16() for part in random_outputs(2, 8)))
    targets = random_targets((4, 3))
    expected = terms_of(Outputs(*(part.float() for part in half)), targets)
    with torch.autocast("cpu", torch.bfloat16):
        found = terms_of(half, targets)
    for name, term in found.items():
        assert term.dtype == torch.float32
        assert float(term) == pytest.approx(float(expected[name]), rel=1e-6)


def test_enormous_logits_stay_finite() -> None:
    outputs = Outputs(
        *((part.detach().float() * 1e4).requires_grad_() for part in random_outputs(1, 4))
    )
    total_loss(terms_of(outputs, random_targets((3,))), PUBLISHED).backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in outputs)


def squares(*, weight: float = 1.0, ignored: bool = False) -> Targets:
    """Two images of 8x8 cells: class 2 in a quarter of the first, where a quarter is ignored if
    asked for; the second is empty.
    """
    masks, valid = torch.zeros(1, 8, 8), torch.ones(2, 8, 8)
    masks[0, :4, :4] = 1
    if ignored:
        valid[0, 4:] = 0
    return Targets([1, 0], torch.tensor([2]), torch.tensor([weight]), masks, valid)


@pytest.mark.parametrize("ignored", [False, True])
def test_cells_of_one_class_have_the_usual_cross_entropy(ignored: bool) -> None:
    logits = torch.randn(
        2, 4, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    labels[0, :2, :2] = 3
    if ignored:
        labels[0, 2:] = 255
    targets = squares(ignored=ignored)
    found = semantic_loss(logits, targets, targets.valid.sum())
    expected = torch.nn.functional.cross_entropy(logits, labels, ignore_index=255)
    assert float(found) == pytest.approx(float(expected))


def test_cells_of_an_instance_count_by_its_weight_and_others_as_before() -> None:
    logits = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))

    def loss(weight: float) -> float:
        return float(semantic_loss(logits, squares(weight=weight), torch.tensor(128.0)))

    assert loss(0.5) == pytest.approx((loss(0) + loss(1)) / 2)
    background = -logits.log_softmax(1)[:, 0]
    background[0, :2, :2] = 0
    assert loss(0) == pytest.approx(float(background.mean()))


def test_cell_of_two_classes_learns_both_by_their_shares() -> None:
    masks = torch.zeros(2, 2, 2)
    masks[0, 0], masks[1, 1, 0] = 1, 1
    targets = Targets([2], torch.tensor([0, 1]), torch.ones(2), masks, torch.ones(1, 2, 2))
    best = torch.tensor([0.25, 0.5, 0.25]).log().view(1, 3, 1, 1)
    entropy = 1.5 * math.log(2)
    assert float(semantic_loss(best, targets, torch.tensor(4.0))) == pytest.approx(entropy)
    assert (
        float(
            semantic_loss(
                best + torch.tensor([0.1, 0, 0]).view(1, 3, 1, 1), targets, torch.tensor(4.0)
            )
        )
        > entropy
    )


def test_where_nothing_counts_the_classes_of_cells_cost_nothing() -> None:
    nothing = Targets(
        [0],
        torch.zeros(0, dtype=torch.long),
        torch.zeros(0),
        torch.zeros(0, 4, 4),
        torch.zeros(1, 4, 4),
    )
    logits = torch.zeros(1, 4, 2, 2, requires_grad=True)
    loss = semantic_loss(logits, nothing, torch.tensor(0.0))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


LOSS = PUBLISHED | {"semantic": 4.0}


def learning(**options: Any) -> LossFn:
    """Return the training loss with the published weights."""
    usual: dict[str, Any] = {"loss": LOSS, "target_resize": "area", "weight_by_score": True}
    return SparseInst.loss_fn(**usual | options)


class FixedOutputs(nn.Module):
    """A network that returns fixed outputs: those of the queries, then logits of the cells."""

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.parts = nn.ParameterList(outputs)

    def forward(self, images: Tensor) -> TrainingOutputs:
        *queries, semantic = self.parts
        return TrainingOutputs(Outputs(*queries), semantic)


def random_batch() -> tuple[list[Tensor], list[Tensor]]:
    """What a network returns, and images of 3, 0 and 1 instances."""
    generator = torch.Generator().manual_seed(0)
    shapes = (4, 6), (4, 8, 8), (4,), (7, 4, 4)
    outputs = [torch.randn(3, *shape, generator=generator) for shape in shapes]
    ids = torch.zeros(3, 32, 32, dtype=torch.uint8)
    ids[0, 2:9, 3:20], ids[0, 12:20, 4:9], ids[0, 20:, 20:], ids[2, 5:25, 6:30] = 1, 2, 3, 1
    ids[0, :8] = 255
    classes = torch.full((3, 3), 255, dtype=torch.uint8)
    classes[0], classes[2, 0] = torch.tensor([1, 2, 3]), 5
    return outputs, [torch.zeros(3, 3, 32, 32), ids, classes, torch.rand(3, 3, generator=generator)]


def test_terms_averaged_over_ranks_are_those_of_the_whole_batch() -> None:
    """The published means of two terms over a rank's own pairs are not."""
    outputs, batch = random_batch()
    whole = learning()(FixedOutputs(outputs), batch, single_rank())
    shares: list[Any] = []
    for cut, *others in ((slice(0, 1), 1.0, 128.0), (slice(1, 3), 3.0, 48.0)):
        part = FixedOutputs([tensor[cut] for tensor in outputs])
        now = one_of_two_ranks(*others)
        shares.append(learning()(part, [tensor[cut] for tensor in batch], now))
    assert "semantic" in whole
    for name, value in whole.items():
        mean = (float(shares[0][name].detach()) + float(shares[1][name].detach())) / 2
        assert mean == pytest.approx(float(value.detach()), rel=1e-5)


def test_options_reach_the_terms() -> None:
    outputs, batch = random_batch()

    def terms(**options: Any) -> dict[str, float]:
        found = learning(**options)(FixedOutputs(outputs), batch, single_rank())
        return {name: float(value.detach()) for name, value in found.items()}

    usual = terms()
    assert terms(target_resize="bilinear")["mask"] != usual["mask"]
    assert terms(weight_by_score=False)["dice"] > usual["dice"]
    one = {"classification": 0, "dice": 0, "mask": 0, "objectness": 2, "semantic": 0}
    assert terms(loss=one)["loss"] == pytest.approx(2 * usual["objectness"])
    assert terms(loss=one | {"semantic": 3})["loss"] == pytest.approx(
        2 * usual["objectness"] + 3 * usual["semantic"]
    )


@pytest.mark.parametrize("resizing", ["area", "bilinear"])
def test_pixels_count_by_their_weights(resizing: str) -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 4, (2, 30, 44), dtype=torch.uint8)
    ids[ids == 3] = 255
    weights = torch.ones(2, 30, 44)
    args = torch.tensor([[0, 1, 255]] * 2, dtype=torch.uint8), torch.ones(2, 3), resizing
    plain, ones = targets_of(ids, *args), targets_of(ids, *args, weights)
    assert all(torch.equal(*map(torch.as_tensor, pair)) for pair in zip(plain, ones, strict=True))
    weights[:, 8:20, 4:30] = 2.5
    found = targets_of(ids, *args, weights)
    inner = slice(None) if resizing == "area" else slice(1, 3)
    for b, row, column in ((0, 2, 3), (1, 4, 7), (1, 7, 10)):
        cell = slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4)
        own, weight = ids[b][cell][inner, inner], weights[b][cell][inner, inner]
        known = (weight * (own != 255)).sum()
        torch.testing.assert_close(
            found.valid[b, row, column], known / (16 if resizing == "area" else 4)
        )
        for k in (0, 1):
            share = (weight * (own == k + 1)).sum() / known
            torch.testing.assert_close(found.masks[2 * b + k, row, column], share)
