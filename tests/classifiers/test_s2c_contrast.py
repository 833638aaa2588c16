"""S2C's segment contrast: the formula at full resolution, what may not change it, its gradients."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.classifiers.s2c import contrast
from pipeline.classifiers.s2c.contrast import segment_contrast


def transcribed(features: Tensor, segments: Tensor, temperature: float, stride: int = 1) -> Tensor:
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
        prototypes = torch.stack([pixels[ids == number].mean(0) for number in own])
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


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 16])
@pytest.mark.parametrize(
    ("cells", "size"),
    [
        ((4, 4), (64, 64)),
        ((3, 5), (41, 77)),
        ((1, 1), (16, 16)),
        ((1, 2), (16, 32)),
        ((2, 2), (32, 32)),
    ],
)
@pytest.mark.parametrize("chunk", [1 << 19, 700])
def test_no_feature_is_interpolated_yet_loss_and_gradient_are_those_of_the_formula(
    monkeypatch: pytest.MonkeyPatch,
    chunk: int,
    cells: tuple[int, int],
    size: tuple[int, int],
    stride: int,
) -> None:
    monkeypatch.setattr(contrast, "CHUNK", chunk)
    features = torch.rand(3, 6, *cells, dtype=torch.float64, requires_grad=True)
    segments = blocks(3, *size)
    ours, theirs = (
        segment_contrast(features, segments, 0.5, stride),
        transcribed(features, segments, 0.5, stride),
    )
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    if theirs.requires_grad:
        gradients = [torch.autograd.grad(loss, features)[0] for loss in (ours, theirs)]
        assert torch.allclose(*gradients, rtol=1e-10, atol=1e-14)


@pytest.mark.defect("s2c-2")
@pytest.mark.parametrize("temperature", [0.5, 1.0, 0.1])
def test_two_orthogonal_segments_cost_log_1_plus_e_to_the_minus_1_over_t(
    temperature: float,
) -> None:
    """The temperature divides (the published code multiplies by it)."""
    segments = torch.ones(1, 8, 8, dtype=torch.int32)
    segments[:, :, 3:] = 2
    features = torch.stack([segments == 1, segments == 2], 1).double() * 7
    expected = math.log1p(math.exp(-1 / temperature))
    assert float(segment_contrast(features, segments, temperature, 1)) == pytest.approx(
        expected, rel=1e-12
    )


def test_permuting_the_ids_changes_nothing() -> None:
    features, segments = torch.rand(2, 6, 4, 4, dtype=torch.float64), blocks(2, 64, 64)
    renumbered = torch.cat([torch.zeros(1, dtype=torch.long), torch.randperm(60000)[:8] + 1])[
        segments.long()
    ]
    assert renumbered.max() > 255
    first, second = (segment_contrast(features, ids, 0.5, 2) for ids in (segments, renumbered))
    assert float(first) == pytest.approx(float(second), rel=1e-12)


def test_a_batch_mate_with_more_segments_changes_nothing_and_a_batch_is_the_mean_of_its_images() -> (
    None
):
    features = torch.rand(3, 6, 4, 4, dtype=torch.float64)
    segments = torch.cat([blocks(2, 64, 64), blocks(2, 64, 64, side=4, kinds=200)[:1]])
    single = [
        segment_contrast(f[None], s[None], 0.5, 1) for f, s in zip(features, segments, strict=True)
    ]
    assert single[1] == 0
    assert float(segment_contrast(features, segments, 0.5, 1)) == pytest.approx(
        float(sum(single)) / 3, rel=1e-12
    )


def test_pixels_in_no_segment_are_neither_targets_nor_negatives() -> None:
    features, segments = (
        torch.rand(1, 6, 16, 16, dtype=torch.float64),
        blocks(2, 16, 16, side=4, kinds=4)[:1],
    )
    assert (segments == 0).any()
    changed = torch.where(segments[:, None] == 0, torch.rand_like(features) * 50, features)
    assert segment_contrast(changed, segments, 0.5, 1) == segment_contrast(
        features, segments, 0.5, 1
    )


def test_segments_that_are_not_in_the_crop_are_no_negatives() -> None:
    """Numbers are compacted per crop: ids 1 and 2 cost the same as ids 7 and 300 of an image with
    many more.
    """
    features = torch.rand(1, 6, 16, 16, dtype=torch.float64)
    segments = torch.ones(1, 16, 16, dtype=torch.int32)
    segments[:, 5:] = 2
    many = torch.tensor([0, 7, 300], dtype=torch.int32)[segments.long()]
    assert segment_contrast(features, many, 0.5, 1) == segment_contrast(features, segments, 0.5, 1)


def test_a_image_without_segments_costs_nothing_and_one_segment_has_nothing_to_tell_apart() -> None:
    features = torch.rand(2, 6, 4, 4, requires_grad=True)
    none = segment_contrast(features, torch.zeros(2, 64, 64, dtype=torch.int32), 0.5, 4)
    one = segment_contrast(features, torch.ones(2, 64, 64, dtype=torch.int32), 0.5, 4)
    assert none == 0
    assert abs(one.item()) < 1e-6
    one.backward()
    assert features.grad is not None
    assert features.grad.abs().max() < 1e-6


def test_prototypes_learn_too() -> None:
    """A pixel's feature moves its segment's prototype, and by that the loss of the other pixels
    (published code: detached).
    """
    segments = torch.tensor([[[1, 1, 2, 2]]], dtype=torch.int32)
    features = torch.rand(1, 4, 1, 4, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(segment_contrast(features, segments, 0.5, 1), features)[0]
    fixed = features.detach().requires_grad_()
    pixels = F.normalize(fixed[0, :, 0].T, dim=1)
    prototypes = F.normalize(
        torch.stack([features[0, :, 0, :2].mean(1), features[0, :, 0, 2:].mean(1)]).detach(), dim=1
    )
    F.cross_entropy(pixels @ prototypes.T / 0.5, torch.tensor([0, 0, 1, 1])).backward()
    assert fixed.grad is not None
    assert (gradient - fixed.grad).abs().max() > 1e-3


def test_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrast, "CHUNK", 100)
    features = torch.rand(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    segments = blocks(3, 12, 18, side=4, kinds=5)[:2]
    assert torch.autograd.gradcheck(lambda f: segment_contrast(f, segments, 0.5, 2), (features,))


def test_features_of_any_size_even_none_at_all_stay_finite() -> None:
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


def test_float32_is_as_exact_as_the_plain_formula() -> None:
    features, segments = torch.rand(2, 64, 8, 8), blocks(3, 128, 128)[:2]
    exact = transcribed(features.double(), segments, 0.5)
    assert float(segment_contrast(features, segments, 0.5, 1)) == pytest.approx(
        float(exact), rel=1e-5
    )
