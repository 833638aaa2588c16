"""Encoder and decoder: sizes as published, groups of any number, weights that sum to one, single
cells, half precision.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.instances.sparseinst.network import Decoder, Encoder, coordinates

WIDTH, QUERIES, CLASSES = 48, 5, 3


def small(**options: object) -> Decoder:
    """A decoder whose maps differ enough between queries to tell them apart."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"queries": QUERIES, "groups": 4} | options
    decoder = Decoder(WIDTH, CLASSES, **settings).double()
    for layer in (
        decoder.instances.activation,
        decoder.instances.classes,
        decoder.instances.kernels,
    ):
        nn.init.normal_(layer.weight, std=0.3)
    return decoder


def features(batch: int = 2, channels: int = WIDTH, height: int = 6, width: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)


def parameters(module: nn.Module) -> int:
    return sum(part.numel() for part in module.parameters())


def test_sizes_are_the_published_ones() -> None:
    assert parameters(Encoder((512, 1024, 2048))) == 3_082_496
    decoder = Decoder(256, 80)
    assert parameters(decoder) == 6_257_377
    assert parameters(decoder.masks) == 2_397_824
    assert parameters(Decoder(256, 80, groups=1)) == 5_046_965


def slow_decoder(decoder: Decoder, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One query, one group, one pixel's worth of equations at a time."""
    branch, groups = decoder.instances, decoder.instances.groups
    located = torch.cat([coordinates(given).expand(len(given), -1, -1, -1), given], 1)
    hidden = branch.convs(located)
    all_maps = branch.activation(hidden)
    queries = all_maps.shape[1] // groups
    logits, kernels, objectness = list[Tensor](), list[Tensor](), list[Tensor]()
    for n in range(queries):
        pooled = []
        for g in range(groups):
            a = all_maps[:, g * queries + n, None]
            if branch.normalization == "softmax":
                weights = a.exp() / a.exp().sum((2, 3), keepdim=True)
            else:
                weights = a.sigmoid() / a.sigmoid().sum((2, 3), keepdim=True)
            pooled.append((weights * hidden).sum((2, 3)))
        merged = branch.merge(torch.cat(pooled, 1))
        for heads, head in zip(
            (logits, kernels, objectness),
            (branch.classes, branch.kernels, branch.objectness),
            strict=True,
        ):
            heads.append(head(merged))
    masks = torch.stack([(k[:, :, None, None] * decoder.masks(located)).sum(1) for k in kernels], 1)
    masks = F.interpolate(masks, scale_factor=2, mode="bilinear", align_corners=False)
    return torch.stack(logits, 1), masks, torch.cat(objectness, 1)


@pytest.mark.defect("sparseinst-9.6")
@pytest.mark.parametrize("normalization", ["sigmoid", "softmax"])
@pytest.mark.parametrize("groups", [1, 2, 3, 8])
def test_any_number_of_groups_equals_a_loop_over_queries(groups: int, normalization: str) -> None:
    """The published code mixes queries unless the number is 4."""
    decoder = small(groups=groups, normalization=normalization)
    with torch.no_grad():
        found, expected = decoder(features()), slow_decoder(decoder, features())
    assert [tuple(part.shape) for part in found] == [
        (2, QUERIES, CLASSES),
        (2, QUERIES, 12, 18),
        (2, QUERIES),
    ]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    assert found.logits.std(1).min() > 1e-3  # queries that were alike could be mixed unseen


@pytest.mark.parametrize("normalization", ["sigmoid", "softmax"])
@pytest.mark.defect("sparseinst-9.5-9.10")
def test_weights_of_a_map_sum_to_one_and_all_parameters_learn(normalization: str) -> None:
    decoder = small(normalization=normalization)
    weights = decoder.instances.normalize(features(2, QUERIES) * 5)
    assert torch.allclose(weights.sum(2), torch.ones(2, QUERIES, dtype=torch.float64))
    assert (weights >= 0).all()
    sum(part.square().sum() for part in decoder(features())).backward()
    idle = [
        name
        for name, part in decoder.named_parameters()
        if part.grad is None or part.grad.abs().max() < 1e-9
    ]
    assert idle == []


def test_maps_without_any_activation_stay_finite() -> None:
    for normalization in ("sigmoid", "softmax"):
        branch = small(normalization=normalization).instances
        for value in (-1e4, 1e4):
            assert branch.normalize(torch.full((1, 2, 3, 3), value)).isfinite().all()


def test_initial_maps_are_even_and_classes_rare() -> None:
    torch.manual_seed(0)
    decoder = Decoder(256, 80)
    with torch.no_grad():
        logits, masks, _ = decoder(torch.randn(1, 256, 8, 8))
        hidden = decoder.instances.convs(torch.randn(1, 258, 8, 8))
        active = torch.cat(decoder.instances.activations(hidden)).sigmoid()
    assert float(logits.sigmoid().mean()) == pytest.approx(0.01, rel=0.1)
    assert float(active.mean()) == pytest.approx(0.01, rel=0.3)
    assert masks.isfinite().all()
    for layer in (decoder.instances.activation, decoder.instances.classes):
        assert layer.bias is not None
        assert torch.allclose(layer.bias, torch.tensor(-math.log(99)))
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4), (4, 1)])
@pytest.mark.defect("sparseinst-3")
def test_coordinates_of_a_single_cell_are_finite(height: int, width: int) -> None:
    """The published code divides 0 by 0."""
    given = features(1, WIDTH, height, width)
    assert coordinates(given).isfinite().all()
    assert (coordinates(given)[0, 0] == 0).all() == (width == 1)
    assert all(part.isfinite().all() for part in small()(given))


@torch.no_grad()
def test_in_half_precision_maps_are_normalized_in_float32() -> None:
    decoder = small().float()
    given = features(1, WIDTH, 24, 24).float()
    exact = decoder(given)
    with torch.autocast("cpu", torch.bfloat16):
        assert (
            decoder.instances.normalize(torch.randn(1, 2, 4, 4).bfloat16()).dtype == torch.float32
        )
        half = decoder(given)
    for ours, theirs in zip(half, exact, strict=True):
        error = (ours.float() - theirs).abs().max() / theirs.abs().max()
        assert 0 < error < 0.05
