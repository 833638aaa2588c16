"""The pair losses against published numbers and the equations, and what holds for any input."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.irnet.losses import pair_losses, total_loss
from pipeline.irnet.paths import directions, line_cells

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "loss_40x48.npz"
TERMS = ("pos", "neg", "disp_fg", "disp_bg")


def random_batch(
    batch: int = 2, height: int = 9, width: int = 13, classes: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, 1, height, width, generator=generator, dtype=torch.float64)
    displacement = 2 * torch.randn(
        batch, 2, height, width, generator=generator, dtype=torch.float64
    )
    labels = torch.randint(
        0, classes + 1, (batch, height, width), generator=generator, dtype=torch.uint8
    )
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    return logits, displacement, labels


def counts_of(logits: Tensor, displacement: Tensor, labels: Tensor, radius: int) -> Tensor:
    """Return the numbers of pairs that are averaged over the ranks."""
    found: list[Tensor] = []

    def keep(counts: Tensor) -> Tensor:
        found.append(counts)
        return counts

    pair_losses(logits, displacement, labels, radius, keep)
    return found[0]


def slow_losses(
    logits: Tensor, displacement: Tensor, labels: Tensor, radius: int
) -> tuple[dict[str, float], list[int]]:
    """The losses as the equations say them, one pair at a time."""
    boundary = torch.sigmoid(logits[:, 0])
    sums, counts, reach = (
        dict.fromkeys(("bg", "fg", "neg", "disp_fg", "disp_bg"), 0.0),
        [0, 0, 0],
        radius - 1,
    )
    batch, height, width = labels.shape
    for b in range(batch):
        for y in range(height - reach):
            for x in range(reach, width - reach):
                for dy, dx in directions(radius):
                    ends = int(labels[b, y, x]), int(labels[b, y + dy, x + dx])
                    if 255 in ends:
                        continue
                    a = 1 - max(float(boundary[b, y + v, x + u]) for v, u in line_cells(dy, dx))
                    difference = (
                        displacement[b, :, y, x] - displacement[b, :, y + dy, x + dx]
                    ).tolist()
                    if ends[0] != ends[1]:
                        counts[2] += 1
                        sums["neg"] -= math.log(1 + 1e-5 - a)
                        continue
                    kind = "fg" if ends[0] else "bg"
                    counts[kind == "fg"] += 1
                    sums[kind] -= math.log(a + 1e-5)
                    shift = (dy, dx) if ends[0] else (0, 0)
                    sums[f"disp_{kind}"] += sum(
                        abs(d - s) for d, s in zip(difference, shift, strict=True)
                    )
    bg, fg, neg = (count + 1e-5 for count in counts)
    terms = {
        "pos": sums["bg"] / bg / 2 + sums["fg"] / fg / 2,
        "neg": sums["neg"] / neg,
        "disp_fg": sums["disp_fg"] / (2 * counts[1] + 1e-5),
        "disp_bg": sums["disp_bg"] / (2 * counts[0] + 1e-5),
    }
    return terms, counts


def test_golden_losses_and_gradients() -> None:
    golden = np.load(GOLDEN)
    logits = torch.tensor(golden["edge_logits"], requires_grad=True)
    displacement = torch.tensor(golden["displacement"], requires_grad=True)
    terms = pair_losses(logits, displacement, torch.tensor(golden["label"]), int(golden["radius"]))
    total = total_loss(terms)
    total.backward()
    for name in TERMS:
        assert terms[name].item() == pytest.approx(float(golden[name]), rel=1e-5)
    assert total.item() == pytest.approx(float(golden["total"]), rel=1e-5)
    for gradient, name in ((logits.grad, "edge_grad"), (displacement.grad, "displacement_grad")):
        peak = np.abs(golden[name]).max()
        assert gradient is not None
        np.testing.assert_allclose(gradient, golden[name], rtol=1e-5, atol=1e-5 * peak)


@pytest.mark.parametrize("radius", [2, 4, 5])
def test_losses_and_counts_match_the_equations(radius: int) -> None:
    logits, displacement, labels = random_batch(seed=radius)
    terms = pair_losses(logits, displacement, labels, radius)
    expected, counts = slow_losses(logits, displacement, labels, radius)
    assert counts_of(logits, displacement, labels, radius).tolist() == counts
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", TERMS)
def test_gradient_of_every_term_is_right(name: str) -> None:
    logits, displacement, labels = random_batch(batch=2, height=5, width=7)
    inputs = (logits.requires_grad_(), displacement.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda e, d: pair_losses(e, d, labels, 3)[name], inputs, atol=1e-8, fast_mode=True
    )


def test_equal_boundaries_give_one_cell_of_the_line_the_gradient() -> None:
    logits = torch.zeros(1, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.zeros(1, 2, 3, dtype=torch.uint8)
    pos = pair_losses(logits, torch.zeros(1, 2, 2, 3), labels, radius=2)["pos"]
    pos.backward()
    assert pos.item() == pytest.approx(math.log(2) / 2, rel=1e-4)
    assert logits.grad is not None
    assert logits.grad.sum().item() == pytest.approx(0.25, rel=1e-4)


def test_displacement_to_one_center_and_constant_background_costs_nothing() -> None:
    labels = torch.zeros(1, 12, 20, dtype=torch.uint8)
    labels[:, 3:9, 6:14] = 2
    grid = torch.stack(torch.meshgrid(torch.arange(12.0), torch.arange(20.0), indexing="ij"))
    center = torch.tensor([5.0, 9.0]).view(2, 1, 1)
    displacement = torch.where(labels > 0, center - grid, torch.full_like(grid, 0.25))[
        None
    ].requires_grad_()
    terms = pair_losses(torch.zeros(1, 1, 12, 20), displacement, labels, 4)
    assert terms["disp_fg"].item() == terms["disp_bg"].item() == 0
    total_loss(terms).backward()
    assert displacement.grad is not None
    assert not displacement.grad.any()


def test_only_ignored_pixels_cost_nothing() -> None:
    logits, displacement, labels = random_batch()
    logits.requires_grad_()
    displacement.requires_grad_()
    terms = pair_losses(logits, displacement, torch.full_like(labels, 255), 4)
    total_loss(terms).backward()
    assert all(term.item() == 0 for term in terms.values())
    assert logits.grad is not None
    assert displacement.grad is not None
    assert not logits.grad.any()
    assert not displacement.grad.any()


@pytest.mark.defect("irn-12")
@pytest.mark.parametrize("high", [20, 90, 254])
def test_every_label_below_255_is_a_class(high: int) -> None:
    logits, displacement, labels = random_batch(classes=1)
    renamed = torch.where(labels == 1, torch.tensor(high, dtype=torch.uint8), labels)
    assert pair_losses(logits, displacement, renamed, 4) == pair_losses(
        logits, displacement, labels, 4
    )


@pytest.mark.defect("sparseinst-9.13")
def test_terms_averaged_over_ranks_are_those_of_the_whole_batch() -> None:
    logits, displacement, labels = random_batch(batch=3)
    whole = pair_losses(logits, displacement, labels, 4)
    parts = [slice(0, 1), slice(1, 3)]
    batches = [(logits[part], displacement[part], labels[part]) for part in parts]
    counts = torch.stack([counts_of(*batch, 4) for batch in batches]).double().mean(0)
    ranks = [pair_losses(*batch, 4, lambda own: counts) for batch in batches]
    for name in TERMS:
        mean = sum(terms[name].item() for terms in ranks) / 2
        assert mean == pytest.approx(whole[name].item(), rel=1e-6)


def test_extreme_logits_stay_finite() -> None:
    logits, displacement, labels = random_batch()
    steep = (logits.float() * 1e4).requires_grad_()
    loss = total_loss(pair_losses(steep, displacement.float(), labels, 4))
    loss.backward()
    assert steep.grad is not None
    assert loss.isfinite()
    assert steep.grad.isfinite().all()


def test_nan_is_not_hidden() -> None:
    logits, displacement, labels = random_batch()
    logits[0, 0, 4, 6] = torch.nan
    assert pair_losses(logits, displacement, labels, 4)["pos"].isnan()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits, displacement, labels = random_batch(height=12, width=20)
    half, field = logits.to(dtype).requires_grad_(), displacement.to(dtype).requires_grad_()
    terms = pair_losses(half, field, labels, 5)
    exact = pair_losses(half.detach().float(), field.detach().float(), labels, 5)
    total_loss(terms).backward()
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert {n: t.item() for n, t in terms.items()} == pytest.approx(
        {n: t.item() for n, t in exact.items()}, rel=1e-6
    )
    assert half.grad is not None
    assert half.grad.dtype == dtype


def test_grid_too_small_for_the_radius_is_refused() -> None:
    logits, displacement, labels = random_batch()
    with pytest.raises(ValueError, match="at least 10x19"):
        pair_losses(logits, displacement, labels, 10)
