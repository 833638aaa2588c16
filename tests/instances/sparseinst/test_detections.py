"""Results: scores, masks in one or two interpolations, what is left out, memory, and images of
unequal sizes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.instances.sparseinst.detections import Detections, Rules, detect, detections
from pipeline.instances.sparseinst.enlarging import axis
from pipeline.instances.sparseinst.network import Network, Outputs

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


def in_steps(masks: Tensor, inner: Sequence[int], size: Sequence[int]) -> Tensor:
    """Probabilities [N,H,W] as published: to the input, cut, to the image."""
    q = masks.double().sigmoid()[:, None]
    q = F.interpolate(q, scale_factor=4.0, mode="bilinear", align_corners=False)
    return F.interpolate(
        q[..., : inner[0], : inner[1]], size, mode="bilinear", align_corners=False
    )[:, 0]


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
@pytest.mark.parametrize(("resizing", "reference"), [("single", in_one), ("published", in_steps)])
def test_masks_are_the_interpolated_probabilities_cut_at_the_threshold(
    resizing: str, reference: Any, inner: tuple[int, int], size: tuple[int, int]
) -> None:
    outputs = outputs_of()
    found = detections(outputs, inner, size, Rules(score=0.0, resizing=resizing))
    expected = reference(outputs.masks, inner, size)
    wanted, sure = expected > 0.45, (expected - 0.45).abs() > 1e-6
    some = wanted.flatten(1).any(1)
    assert found.masks.shape == (int(some.sum()), *size)
    assert found.masks.dtype == torch.bool
    assert torch.equal(found.masks & sure[some], (wanted & sure)[some])
    assert 0.02 < wanted.float().mean() < 0.9


def test_the_two_ways_of_resizing_differ_at_edges_alone() -> None:
    one, two = (
        detections(outputs_of(), (104, 120), (96, 140), Rules(resizing=resizing)).masks
        for resizing in ("single", "published")
    )
    assert 0 < (one != two).float().mean() < 0.02


@pytest.mark.defect("sparseinst-9.3")
@pytest.mark.parametrize("maskness", [True, False])
def test_scores_are_the_equation(maskness: bool) -> None:
    outputs = outputs_of()
    found = detections(outputs, (128, 128), (128, 128), Rules(score=0.0, maskness=maskness))
    p, q = outputs.logits.sigmoid(), outputs.masks.sigmoid()
    rows = zip(p, outputs.objectness.sigmoid(), q, strict=True)
    expected = [
        float((classes.max() * o).sqrt()) * (float(mask[mask > 0.45].mean()) if maskness else 1.0)
        for classes, o, mask in rows
    ]
    assert found.scores.tolist() == pytest.approx(expected, rel=1e-5)
    assert found.classes.tolist() == p.argmax(1).tolist()
    assert found.classes.dtype == torch.int64
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


@pytest.mark.defect("sparseinst-9.9")
def test_the_threshold_of_the_score_is_the_product_of_class_and_objectness() -> None:
    logits, objectness = torch.tensor([[9.0, 0], [0, 9], [0, 9]]), torch.tensor([9.0, -9, 0])
    outputs = Outputs(logits, torch.full((3, 8, 8), 5.0), objectness)
    found = detections(outputs, (32, 32), (20, 20), Rules(score=0.5))
    assert found.classes.tolist() == [0, 1]
    assert found.masks.all()
    assert len(detections(outputs, (32, 32), (20, 20), Rules(score=0.9)).classes) == 1


def empty(found: Detections, size: tuple[int, int]) -> bool:
    shapes = [tuple(part.shape) for part in found]
    return shapes == [(0, *size), (0,), (0,)] and found.masks.dtype == torch.bool


@pytest.mark.defect("sparseinst-6.5")
def test_nothing_found_is_a_result_too() -> None:
    """Where the published code has no masks at all (specification, 6.5)."""
    assert empty(detections(outputs_of(), (128, 128), (50, 60), Rules(score=0.999)), (50, 60))
    assert empty(detections(outputs_of(0), (128, 128), (50, 60), Rules()), (50, 60))


def test_empty_masks_are_left_out() -> None:
    """Those below the threshold everywhere, and those above it in the padding alone."""
    masks = torch.full((4, 32, 32), -9.0)
    masks[1, 3:5, 3:5], masks[2, 27:, :], masks[3, :, 31:] = 9, 9, 9
    outputs = Outputs(torch.zeros(4, 2), masks, torch.zeros(4))
    for resizing in ("single", "published"):
        found = detections(outputs, (104, 120), (96, 140), Rules(resizing=resizing))
        assert len(found.masks) == 1
        assert found.masks.any()
    assert empty(
        detections(Outputs(*(part[:1] for part in outputs)), (104, 120), (9, 9), Rules()), (9, 9)
    )


@pytest.mark.parametrize(("inner", "size"), CASES)
@pytest.mark.parametrize("resizing", ["single", "published"])
def test_the_reach_of_cells_is_all_their_pixels_and_no_other(
    inner: tuple[int, int], size: tuple[int, int], resizing: str
) -> None:
    along = axis(32, inner[0], size[0], resizing, torch.zeros((), dtype=torch.float64))
    weights = along.weights
    assert torch.allclose(weights.sum(1), torch.ones(size[0], dtype=torch.float64))
    for start in range(32):
        for stop in range(start + 1, 33):
            pixels, cells = along.reach(start, stop)
            touched = weights[:, start:stop].any(1).nonzero()[:, 0].tolist()
            assert list(range(pixels.start, pixels.stop)) == touched
            assert torch.allclose(
                weights[pixels, cells].sum(1), torch.ones(len(touched), dtype=torch.float64)
            )


class Largest(TorchDispatchMode):
    """Records how many elements the largest floating tensor has."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            self.elements = max(self.elements, result.numel())
        return result


def test_no_more_than_one_mask_is_held_in_float_at_full_size() -> None:
    outputs = outputs_of(60)
    with Largest() as largest:
        found = detections(outputs, (128, 128), (400, 500), Rules(resizing="published"))
    assert found.masks.shape == (60, 400, 500)
    assert 32 * 32 * 60 <= largest.elements <= 400 * 500


def test_half_precision_is_computed_in_float32() -> None:
    half = Outputs(*(part.bfloat16() for part in outputs_of()))
    expected = detections(Outputs(*(part.float() for part in half)), (104, 120), (96, 140), Rules())
    with torch.autocast("cpu", torch.bfloat16):
        found = detections(half, (104, 120), (96, 140), Rules())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_the_order_of_the_queries_is_kept() -> None:
    order = torch.tensor([4, 0, 8, 1, 3, 2, 7, 6, 5])
    rules, sizes = Rules(score=0.0), ((104, 120), (96, 140))
    expected, outputs = detections(outputs_of(), *sizes, rules), outputs_of()
    found = detections(Outputs(*(part[order] for part in outputs)), *sizes, rules)
    assert len(found.masks) == 9
    assert all(
        torch.equal(ours, theirs[order]) for ours, theirs in zip(found, expected, strict=True)
    )


def test_an_unknown_resizing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'double'.*single, published"):
        Rules(resizing="double")


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    network = Network(3, "test_resnet", width=16, queries=8, groups=2, kernel=8, depth=1).eval()
    for layer in (network.decoder.instances.activation, network.decoder.instances.kernels):
        torch.nn.init.normal_(layer.weight, std=0.5)
    return network


def images() -> list[Tensor]:
    rng = np.random.default_rng(0)
    sizes = [(50, 70), (64, 96), (33, 65), (90, 40), (8, 8), (50, 70)]
    return [torch.from_numpy(rng.integers(0, 256, (3, *size), np.uint8)) for size in sizes]


@pytest.mark.defect("sparseinst-9.12")
@pytest.mark.parametrize("sides", [None, (64, 100)])
def test_a_images_result_does_not_depend_on_the_others(
    network: Network, sides: tuple[int, int] | None
) -> None:
    """Published, padding to the largest of a batch changes the others' results (specification,
    9.12).
    """
    together = detect(network, images(), score=0.005, sides=sides)
    for image, found in zip(images(), together, strict=True):
        (alone,) = detect(network, [image], score=0.005, sides=sides)
        assert found.masks.shape[1:] == image.shape[1:]
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, alone, strict=True))
    assert sum(len(found.scores) for found in together) > 6
    assert detect(network, [], score=0.005) == []


@pytest.mark.parametrize(
    ("size", "sides", "expected"),
    [
        ((50, 70), (64, 999), (64, 90)),
        ((50, 100), (64, 96), (48, 96)),
        ((90, 40), (40, 90), (90, 40)),
    ],
)
def test_the_shorter_side_is_set_unless_the_longer_one_passes_its_limit(
    network: Network,
    size: tuple[int, int],
    sides: tuple[int, int],
    expected: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    prepare = network.prepare
    monkeypatch.setattr(
        network, "prepare", lambda images: seen.append(images.shape[2:]) or prepare(images)
    )
    (found,) = detect(network, [torch.zeros(3, *size, dtype=torch.uint8)], score=0.0, sides=sides)
    assert [tuple(shape) for shape in seen] == [expected]
    assert found.masks.shape[1:] == size
