"""From outputs to instances: scores, masks at the image's size, what is left out, and memory."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.instances import sparseinst
from pipeline.instances.base import Detections
from pipeline.instances.sparseinst import SparseInst, detections, upsample_masks, voted
from pipeline.instances.sparseinst.network import Outputs

CASES = [
    ((104, 120), (96, 140)),
    ((96, 100), (300, 311)),
    ((128, 128), (128, 128)),
    ((70, 128), (17, 30)),
]
"""Sizes at the network's input, which is padded to 128x128, and of the image."""


def outputs_of(queries: int = 9, seed: int = 0) -> Outputs:
    """Smooth random masks of objects of many sizes."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(queries, 1, 5, 5, generator=generator) * 3 - 1
    masks = F.interpolate(noise, (32, 32), mode="bicubic", align_corners=False)[:, 0]
    return Outputs(
        torch.randn(queries, 4, generator=generator),
        masks,
        torch.randn(queries, generator=generator),
    )


def in_one(masks: Tensor, inner: Sequence[int], size: Sequence[int]) -> Tensor:
    """Probabilities [N,H,W] at the places of the image's pixels on the grid of the cells."""
    q = masks.double().sigmoid()[None]
    axes = [
        ((torch.arange(n, dtype=torch.float64) + 0.5) * i / n / 4) * 2 / c - 1
        for n, i, c in zip(size, inner, masks.shape[1:], strict=True)
    ]
    y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack([x, y], -1)[None]
    return F.grid_sample(q, grid, mode="bilinear", padding_mode="border", align_corners=False)[0]


@pytest.mark.parametrize(("inner", "size"), CASES)
@pytest.mark.parametrize("at_once", [1, 10**9])
def test_masks_are_the_interpolated_probabilities_above_the_threshold(
    at_once: int,
    inner: tuple[int, int],
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sparseinst, "VALUES_AT_ONCE", at_once)
    outputs = outputs_of()
    found = detections(outputs, inner, size, 0.0)
    expected = in_one(outputs.masks, inner, size)
    wanted, sure = expected > 0.45, (expected - 0.45).abs() > 1e-5
    some = wanted.flatten(1).any(1)
    assert found.masks.shape == (int(some.sum()), *size)
    assert found.masks.dtype == torch.bool
    assert torch.equal(found.masks & sure[some], (wanted & sure)[some])
    assert 0.02 < wanted.float().mean() < 0.9


@pytest.mark.parametrize("inner", range(97, 129))
def test_masks_reach_the_last_pixel(inner: int) -> None:
    """Whatever the scale is rounded to."""
    for size in (31, 97, 131, 640):
        masks = upsample_masks(torch.ones(1, 32, 32), (inner, 128), (size, size))
        assert masks.shape == (1, size, size)
        assert masks.all()


@pytest.mark.defect("sparseinst-9.3")
def test_scores_are_the_equation() -> None:
    outputs = outputs_of()
    found = detections(outputs, (128, 128), (128, 128), 0.0)
    p, o, q = outputs.logits.sigmoid(), outputs.objectness.sigmoid(), outputs.masks.sigmoid()
    expected = [
        float((classes.max() * objectness).sqrt() * mask[mask > 0.45].mean())
        for classes, objectness, mask in zip(p, o, q, strict=True)
    ]
    assert found.scores.tolist() == pytest.approx(expected, rel=1e-5)


def test_cells_under_a_mask_vote_on_its_class() -> None:
    generator = torch.Generator().manual_seed(1)
    outputs = Outputs(*(torch.stack([part, part.flip(0)]) for part in outputs_of(5)))
    semantic = torch.randn(2, 5, 16, 16, generator=generator) * 3
    found = voted(outputs, semantic)
    assert found.masks is outputs.masks
    assert found.objectness is outputs.objectness
    for image, query in product(range(2), range(5)):
        q = outputs.masks[image, query].sigmoid()
        weights = torch.where(q > 0.45, q, 0).reshape(16, 2, 16, 2).sum((1, 3))
        means = (semantic[image, 1:] * weights).sum((1, 2)) / weights.sum()
        expected = (outputs.logits[image, query].sigmoid() * means.softmax(0)).sqrt()
        torch.testing.assert_close(found.logits[image, query].sigmoid(), expected)
    without = voted(outputs, torch.cat([semantic[:, :1] + 9, semantic[:, 1:]], 1))
    assert torch.equal(found.logits, without.logits), "background has no vote"


def test_vote_is_finite() -> None:
    """Of no cell, and of cells and queries that are sure."""
    logits, masks = torch.tensor([[[-1.0, 1, 0]]]), torch.full((1, 1, 4, 4), -9.0)
    nobody = voted(Outputs(logits, masks, torch.ones(1)), torch.randn(1, 4, 2, 2))
    torch.testing.assert_close(nobody.logits.sigmoid(), (logits.sigmoid() / 3).sqrt())
    semantic = 1e4 * torch.tensor([0.0, -1, 1, 0]).view(1, 4, 1, 1).expand(1, 4, 2, 2)
    sure = voted(Outputs(1e4 * logits, -masks, torch.ones(1)), semantic)
    assert sure.logits.isfinite().all()
    assert sure.logits.argmax() == 1


@pytest.mark.defect("sparseinst-9.9")
def test_score_threshold_applies_before_the_mask_lowers_the_score() -> None:
    logits, objectness = torch.tensor([[9.0, 0], [0, 9], [0, 9]]), torch.tensor([9.0, -9, 0])
    outputs = Outputs(logits, torch.full((3, 8, 8), 5.0), objectness)
    found = detections(outputs, (32, 32), (20, 20), 0.5)
    assert found.classes.tolist() == [0, 1]
    assert found.masks.all()
    assert len(detections(outputs, (32, 32), (20, 20), 0.9).classes) == 1


def empty(found: Detections, size: tuple[int, int]) -> bool:
    shapes = [tuple(part.shape) for part in found]
    return shapes == [(0, *size), (0,), (0,)] and found.masks.dtype == torch.bool


@pytest.mark.defect("sparseinst-6.5")
def test_no_detections_are_a_result() -> None:
    """Where the published code has no masks at all."""
    assert empty(detections(outputs_of(), (128, 128), (50, 60), 0.999), (50, 60))
    assert empty(detections(outputs_of(0), (128, 128), (50, 60), 0.005), (50, 60))


def test_empty_masks_are_left_out() -> None:
    """Those below the threshold everywhere, and those above it in the padding alone."""
    masks = torch.full((4, 32, 32), -9.0)
    masks[1, 3:5, 3:5], masks[2, 27:, :], masks[3, :, 31:] = 9, 9, 9
    found = detections(Outputs(torch.zeros(4, 2), masks, torch.zeros(4)), (104, 120), (96, 140), 0)
    assert len(found.masks) == 1
    assert found.masks.any()


class Largest(TorchDispatchMode):
    """Records how many elements the largest floating tensor has."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            self.elements = max(self.elements, result.numel())
        return result


def test_memory_is_bounded_by_the_values_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparseinst, "VALUES_AT_ONCE", 500_000)
    outputs = outputs_of(60)
    with Largest() as largest:
        found = detections(outputs, (128, 128), (400, 500), 0.0)
    assert found.masks.shape == (60, 400, 500)
    assert 400 * 500 < largest.elements <= 500_000


def test_half_precision_is_computed_in_float32() -> None:
    half = Outputs(*(part.bfloat16() for part in outputs_of()))
    expected = detections(Outputs(*(part.float() for part in half)), (104, 120), (96, 140), 0.005)
    with torch.autocast("cpu", torch.bfloat16):
        found = detections(half, (104, 120), (96, 140), 0.005)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def voting_network() -> tuple[SparseInst, nn.Conv2d]:
    """A network and its semantic layer."""
    torch.manual_seed(0)
    network = SparseInst(3, "test_resnet", width=16, queries=4, semantic=True)
    assert network.semantic is not None
    return network, network.semantic


def test_network_lets_its_semantic_layer_vote() -> None:
    network, layer = voting_network()
    prepared = network.eval().prepare(torch.randint(256, (2, 3, 40, 70)))
    with torch.no_grad():
        features = network.encode(prepared)
        expected = voted(network.decoder(features), layer(features))
        assert torch.equal(network.decode(prepared).outputs.logits, expected.logits)
        network.semantic = None
        assert torch.equal(
            network.decode(prepared).outputs.logits, network.decoder(features).logits
        )


def test_semantic_layer_does_not_learn_from_its_vote() -> None:
    network, layer = voting_network()
    outputs, _ = network.train()(torch.randint(256, (2, 3, 64, 64)))
    outputs.logits.sum().backward()
    assert layer.weight.grad is None
    assert network.decoder.instances.classes.weight.grad is not None
