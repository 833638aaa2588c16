"""The terms of S2C's loss: segment contrast, consistency with prompted masks, their gradients."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.classifiers.s2c import losses
from pipeline.classifiers.s2c.losses import FLOOR, map_loss, segment_contrast
from pipeline.core.artifacts import IGNORE

INSIDE = torch.ones(1, 4, 4, dtype=torch.bool)
AUTHORS = Path(__file__).resolve().parents[1] / "golden" / "authors" / "s2c_losses.npz"


def transcribed(
    features: Tensor,
    segments: Tensor,
    temperature: float,
    stride: int = 1,
    detached: bool = False,
) -> Tensor:
    """The published formula, pixel by pixel: interpolate, average, normalize, compare."""
    losses = []
    places = segments[:, stride // 2 :: stride, stride // 2 :: stride]
    enlarged = F.interpolate(features, segments.shape[1:], mode="bilinear", align_corners=False)
    for maps, ids in zip(
        enlarged[:, :, stride // 2 :: stride, stride // 2 :: stride], places, strict=True
    ):
        pixels, ids = maps.flatten(1).T, ids.flatten().long()
        own = ids[ids > 0].unique()
        if not len(own):
            losses.append(features.new_zeros(()))
            continue
        source, groups = pixels, list(own)
        if detached:
            source, groups = (
                F.normalize(pixels, dim=1).detach(),
                groups + [0] * bool((ids == 0).any()),
            )
        prototypes = torch.stack([source[ids == number].mean(0) for number in groups])
        cosines = F.normalize(pixels, dim=1) @ F.normalize(prototypes, dim=1).T
        losses.append(
            F.cross_entropy((cosines / temperature)[ids > 0], torch.searchsorted(own, ids[ids > 0]))
        )
    return torch.stack(losses).mean()


def blocks(images: int, height: int, width: int, side: int = 8, kinds: int = 9) -> Tensor:
    """Segments in blocks, some of id 0; the last image has none."""
    ids = torch.randint(
        0, kinds, (images, -(-height // side), -(-width // side)), dtype=torch.int32
    )
    ids = ids.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :height, :width].clone()
    ids[-1] = 0
    return ids


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("stride", [1, 3, 16])
@pytest.mark.parametrize(
    ("cells", "size"), [((4, 4), (64, 64)), ((3, 5), (41, 77)), ((1, 2), (16, 32))]
)
@pytest.mark.parametrize("chunk", [1 << 19, 700])
@pytest.mark.parametrize("detached", [False, True])
def test_loss_and_gradient_are_those_of_the_interpolated_formula(
    monkeypatch: pytest.MonkeyPatch,
    detached: bool,
    chunk: int,
    cells: tuple[int, int],
    size: tuple[int, int],
    stride: int,
) -> None:
    monkeypatch.setattr(losses, "CHUNK", chunk)
    features = torch.rand(3, 6, *cells, dtype=torch.float64, requires_grad=True)
    segments = blocks(3, *size)
    segments[0].clamp_(min=1)  # no pixel is left out of it
    ours = segment_contrast(features, segments, 0.5, stride, detached=detached)
    theirs = transcribed(features, segments, 0.5, stride, detached)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    if theirs.requires_grad:
        one, other = (torch.autograd.grad(loss, features)[0] for loss in (ours, theirs))
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


def assert_gradient(loss: Tensor, at: Tensor, expected: np.ndarray) -> None:
    """The gradient of the loss is the expected one, within 1e-5 of its largest value."""
    (found,) = torch.autograd.grad(loss, at)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.defect("s2c-2")
@pytest.mark.parametrize("factor", [1, 2])
def test_contrast_is_that_of_the_published_code(factor: int) -> None:
    """Values and gradients of the code itself, whose temperature is a factor; 6 % of the pixels are
    in no segment.
    """
    golden = np.load(AUTHORS)
    features, segments = (torch.from_numpy(golden[key]) for key in ("features", "segments"))
    features.requires_grad_()
    loss = segment_contrast(features, segments, 1 / factor, 1, detached=True)
    assert loss.item() == pytest.approx(golden[f"ssc_T{factor}"].item(), rel=1e-5)
    assert_gradient(loss, features, golden[f"ssc_grad_T{factor}"])


def test_map_loss_is_that_of_the_published_code() -> None:
    """Which lets the classes that are absent compete, as empty maps."""
    golden = np.load(AUTHORS)
    maps, tags, target = (torch.from_numpy(golden[key]) for key in ("maps", "tags", "target"))
    background, inside = tags.shape[1], torch.ones(target.shape, dtype=torch.bool)
    labels = target + 1  # 255, to be ignored, becomes 0
    labels[target == background], labels[target == IGNORE] = 0, IGNORE
    maps.requires_grad_()
    loss = map_loss(maps * tags[:, :, None, None], torch.ones_like(tags), labels, inside)
    assert loss.item() == pytest.approx(golden["cpm"].item(), rel=1e-5)
    assert_gradient(loss, maps, golden["cpm_grad"])


def test_permuting_the_ids_changes_nothing() -> None:
    features, segments = torch.rand(2, 6, 4, 4, dtype=torch.float64), blocks(2, 64, 64)
    renumbered = torch.cat([torch.zeros(1, dtype=torch.long), torch.randperm(60000)[:8] + 1])[
        segments.long()
    ]
    assert renumbered.max() > 255
    first, second = (segment_contrast(features, ids, 0.5, 2) for ids in (segments, renumbered))
    assert float(first) == pytest.approx(float(second), rel=1e-12)


def test_images_of_no_segment_or_of_one_cost_nothing() -> None:
    features = torch.rand(2, 6, 4, 4, requires_grad=True)
    none = segment_contrast(features, torch.zeros(2, 64, 64, dtype=torch.int32), 0.5, 4)
    one = segment_contrast(features, torch.ones(2, 64, 64, dtype=torch.int32), 0.5, 4)
    assert none == 0
    assert abs(one.item()) < 1e-6
    one.backward()
    assert features.grad is not None
    assert features.grad.abs().max() < 1e-6


def test_features_of_any_length_even_zero_stay_finite() -> None:
    """Where ReLU leaves nothing, a pixel is equally far from every prototype."""
    segments = torch.ones(1, 8, 8, dtype=torch.int32)
    segments[:, 4:] = 2
    for scale in (0.0, 1e-20, 1e-3, 1e6):
        features = (torch.rand(1, 5, 8, 8) * scale).requires_grad_()
        loss = segment_contrast(features, segments, 0.5, 1)
        loss.backward()
        assert torch.isfinite(loss)
        assert features.grad is not None
        assert torch.isfinite(features.grad).all()
        if scale < 1e-6:
            assert loss.item() == pytest.approx(math.log(2), rel=1e-5)


def test_map_loss_by_hand() -> None:
    """Two classes, no enlargement: S^c = ReLU(A^c) / max, S^0 = 1 - max_c S^c, softmax over the
    three.
    """
    maps = torch.tensor([[[[4.0, -1.0]], [[1.0, 2.0]]]])
    labels = torch.tensor([[[1, 0]]], dtype=torch.uint8)
    loss = map_loss(maps, torch.ones(1, 2), labels, torch.ones(1, 1, 2, dtype=torch.bool))
    first = math.log(sum(map(math.exp, (0, 1, 0.5)))) - 1
    second = math.log(sum(map(math.exp, (0, 0, 1)))) - 0
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_absent_classes_do_not_compete_and_get_no_gradient() -> None:
    maps = torch.randn(1, 5, 4, 4, requires_grad=True)
    labels = torch.randint(0, 2, (1, 64, 64), dtype=torch.uint8) * 2
    inside = torch.ones(1, 64, 64, dtype=torch.bool)
    loss = map_loss(maps, torch.tensor([[0.0, 1, 0, 0, 1]]), labels, inside)
    loss.backward()
    assert maps.grad is not None
    assert maps.grad[:, [0, 2, 3]].abs().max() == 0
    assert maps.grad[:, [1, 4]].abs().amax((0, 2, 3)).min() > 0
    alone = map_loss(maps[:, [1, 4]], torch.ones(1, 2), labels // 2, inside)
    assert alone.item() == pytest.approx(loss.item(), rel=1e-6)


def test_map_loss_does_not_depend_on_the_scale_of_a_map() -> None:
    maps = (torch.randn(1, 1, 4, 4, dtype=torch.float64) + 3).requires_grad_()
    labels = torch.zeros(1, 4, 4, dtype=torch.uint8)
    labels[:, :2] = 1
    losses = [map_loss(maps * scale, torch.ones(1, 1), labels, INSIDE) for scale in (1, 10)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12)
    losses[0].backward()
    assert maps.grad is not None
    assert abs(float((maps.grad * maps.detach()).sum())) < 1e-15
    assert maps.grad.abs().max() > 1e-3


def test_a_faint_map_is_not_blown_up() -> None:
    labels = torch.ones(1, 4, 4, dtype=torch.uint8)
    gradients = []
    for strength in (1e-6, 1e-2, FLOOR):
        maps = torch.full((1, 1, 4, 4), strength * 0.5)
        maps[..., 0, 0] = strength
        maps.requires_grad_()
        map_loss(maps, torch.ones(1, 1), labels, INSIDE).backward()
        assert maps.grad is not None
        gradients.append(float(maps.grad[0, 0, 1:].abs().max()))
    assert max(gradients) < 2 * min(gradients)


def test_maxima_outside_the_image_do_not_count() -> None:
    maps = torch.ones(1, 1, 4, 4) * 2
    maps[..., 3] = 100
    labels, inside = (
        torch.ones(1, 64, 64, dtype=torch.uint8),
        torch.ones(1, 64, 64, dtype=torch.bool),
    )
    labels[..., 40:], inside[..., 48:] = IGNORE, False
    loss = map_loss(maps, torch.ones(1, 1), labels, inside)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)), rel=1e-5)


def test_images_without_labeled_pixels_or_without_tags_cost_nothing() -> None:
    maps, tags = torch.randn(2, 3, 4, 4), torch.tensor([[0.0, 1, 0], [0, 0, 0]])
    labels = torch.tensor([IGNORE, 0], dtype=torch.uint8).view(2, 1, 1).expand(2, 4, 4)
    assert map_loss(maps, tags, labels, INSIDE.expand(2, 4, 4)) == 0
