"""Training crops: sizes in range, labels aligned with the image, padding, flips, one generator."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipeline.data.augmentation import (
    MAX_SIDE,
    Crops,
    Emphasis,
    LongSide,
    RandomScale,
    ShortSide,
    as_image,
    as_mask,
    color_changes,
    training_crop,
)
from tests.support.sources import painted

MEAN = (0.2, 0.4, 0.6)
JITTER = (0.4, 0.4, 0.4, 0.1)


def striped(height: int = 60, width: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Vertical stripes of 10 pixels with labels from 1 and proportional gray levels."""
    labels = np.broadcast_to(np.arange(width) // 10 + 1, (height, width)).astype(np.uint8)
    return np.repeat(labels[..., None] * 25, 3, axis=2), labels


@pytest.mark.parametrize(("kind", "side"), [(LongSide, max), (ShortSide, min)])
@pytest.mark.parametrize(("height", "width"), [(60, 80), (80, 60), (200, 20)])
def test_a_side_is_drawn_from_its_closed_range(
    kind: type[LongSide] | type[ShortSide], side: Callable[..., int], height: int, width: int
) -> None:
    torch.manual_seed(0)
    image = as_image(np.zeros((height, width, 3), np.uint8))
    sizes = {tuple(kind(30, 33)(image).shape[1:]) for _ in range(60)}
    assert {side(size) for size in sizes} == {30, 31, 32, 33}
    for h, w in sizes:
        factor = side(h, w) / side(height, width)
        assert (h, w) == (round(height * factor), round(width * factor))


@pytest.mark.parametrize(("height", "width"), [(60, 80), (80, 60), (40, 200)])
def test_shorter_side_is_drawn_in_steps_and_the_longer_one_limited(height: int, width: int) -> None:
    """SparseInst's way: 416 to 640 in steps of 32, the longer side 853 at most."""
    torch.manual_seed(0)
    image = as_image(np.zeros((height, width, 3), np.uint8))
    resize = ShortSide(32, 64, 85, 16)
    sizes = {tuple(sorted(resize(image).shape[1:])) for _ in range(60)}
    long = max(height, width) / min(height, width)
    assert sizes == {(32, 43), (48, 64), (64, 85)} if long < 2 else sizes == {(17, 85)}


@pytest.mark.defect("irn-20")
def test_scale_is_drawn_from_its_range() -> None:
    torch.manual_seed(0)
    image = as_image(np.zeros((100, 200, 3), np.uint8))
    sizes = [tuple(RandomScale(0.5, 1.5)(image).shape[1:]) for _ in range(200)]
    assert all(abs(w - 2 * h) <= 1 for h, w in sizes)
    factors = np.array([w / 200 for _, w in sizes])
    assert 0.5 <= factors.min() < 0.53
    assert 1.47 < factors.max() <= 1.5
    assert abs(factors.mean() - 1) < 0.1


def test_an_image_never_vanishes() -> None:
    image = as_image(np.zeros((3, 900, 3), np.uint8))
    assert LongSide(64, 64)(image).shape == (3, 1, 64)
    assert RandomScale(0.1, 0.1)(image).shape == (3, 1, 90)


@pytest.mark.parametrize("resize", [RandomScale(0.5, 1.5), LongSide(40, 120)])
def test_labels_stay_labels_and_move_with_the_image(resize: v2.Transform) -> None:
    image, labels = striped()
    crop = training_crop(resize, 64, MEAN)
    flipped = set()
    for seed in range(20):
        torch.manual_seed(seed)
        sample, mask = crop(as_image(image), as_mask(labels[None]))
        assert (tuple(sample.shape), tuple(mask.shape)) == ((3, 64, 64), (1, 64, 64))
        assert (sample.dtype, mask.dtype) == (torch.uint8, torch.uint8)
        values, level = mask[0], sample[0].float() / 25
        assert set(values.unique().tolist()) <= {*range(1, 9), 255}
        known = values != 255
        inner = known.clone()
        inner[:, 2:-2] &= (values[:, :-4] == values[:, 2:-2]) & (values[:, 4:] == values[:, 2:-2])
        inner[:, :2] = inner[:, -2:] = False
        assert (level - values)[inner].abs().max() < 0.5
        row = values[known.any(1)][0]
        row = row[row != 255].int()
        flipped.add(bool(row[0] > row[-1]))
    assert flipped == {False, True}


@pytest.mark.parametrize("scale", [0.6, 0.75, 1.3])
def test_labels_are_resized_about_the_same_centers_as_the_image(scale: float) -> None:
    image = np.zeros((90, 120, 3), np.uint8)
    image[31:62, 40:83] = 255
    resized, labels = RandomScale(scale, scale)(as_image(image), as_mask(image[None, ..., 0]))
    assert ((resized[0] > 127) == (labels[0] > 127)).all()


def test_a_small_image_is_placed_anywhere_on_the_mean_color() -> None:
    crop = training_crop(RandomScale(1, 1), 64, MEAN)
    offsets = set()
    for seed in range(30):
        torch.manual_seed(seed)
        image, mask = crop(
            as_image(np.full((40, 50, 3), 255, np.uint8)),
            as_mask(np.full((1, 40, 50), 7, np.uint8)),
        )
        inside = mask[0] == 7
        assert (mask[0][~inside] == 255).all()
        assert int(inside.sum()) == 40 * 50
        assert (image[:, inside] == 255).all()
        assert (image[:, ~inside] == torch.tensor([51, 102, 153])[:, None]).all()
        offsets.add(tuple(inside.nonzero()[0].tolist()))
    assert {y for y, _ in offsets} <= set(range(25))
    assert len({y for y, _ in offsets}) > 8
    assert len({x for _, x in offsets}) > 5


def test_a_large_image_is_cut_anywhere_and_not_padded() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[..., 0], image[..., 1] = np.mgrid[:100, :100]
    crop = training_crop(RandomScale(1, 1), 32, MEAN)
    corners = set()
    for seed in range(40):
        torch.manual_seed(seed)
        sample = crop(as_image(image))
        corners.add((int(sample[0].min()), int(sample[1].min())))
        assert int(sample[0].max()) - int(sample[0].min()) == 31
    assert len(corners) > 30
    assert max(y for y, _ in corners) > 55


@pytest.mark.parametrize("changes", [(1, 0), (0, 1), (1, 1)])
def test_colors_change_in_the_image_alone(changes: tuple[float, float]) -> None:
    image, labels = striped()
    image = image * np.array([1.0, 0.7, 0.4])
    colors = color_changes(JITTER, *changes)
    crop = training_crop(RandomScale(1, 1), 96, MEAN, colors=colors)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        sample, mask = crop(as_image(image.astype(np.uint8)), as_mask(labels[None]))
        assert (sample.dtype, tuple(sample.shape)) == (torch.uint8, (3, 96, 96))
        inside = mask[0] != 255
        assert int(inside.sum()) == labels.size
        assert (sample[:, ~inside] == torch.tensor([51, 102, 153])[:, None]).all()
        shown = [sample[:, mask[0] == label] for label in range(1, 9)]
        assert all((stripe == stripe[:, :1]).all() for stripe in shown), "no pixel moved"
        spread = sample[:, inside].int().amax(0) - sample[:, inside].int().amin(0)
        assert (int(spread.max()) == 0) == bool(changes[1]), "gray"
        seen.add(tuple(shown[4][:, 0].tolist()))
    assert len(seen) > 10 if changes[0] else len(seen) == 1


def test_changes_of_probability_0_draw_nothing() -> None:
    """So that crops without changes are the same, byte for byte, as if there were none."""
    assert color_changes(JITTER, 0, 0) == []


def test_only_torchs_generator_is_used() -> None:
    image, labels = striped()
    crop = training_crop(RandomScale(0.5, 1.5), 48, MEAN, colors=color_changes(JITTER, 0.8, 0.5))
    results = []
    for other in (1, 2):
        random.seed(other)
        np.random.seed(other)  # noqa: NPY002 - the old global generator is what must not matter
        torch.manual_seed(5)
        results.append(crop(as_image(image), as_mask(labels[None])))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


def test_arrays_of_any_memory_order_become_tensors() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    turned = image[:, ::-1]
    tensor = as_image(turned)
    assert isinstance(tensor, tv_tensors.Image)
    assert (tensor.permute(1, 2, 0).numpy() == turned).all()
    mask = as_mask(turned[None, ..., 0])
    assert isinstance(mask, tv_tensors.Mask)
    assert (mask[0].numpy() == turned[..., 0]).all()


def test_a_narrow_image_is_not_enlarged_to_gigabytes() -> None:
    resize = ShortSide(640, 640)
    assert resize(as_image(np.zeros((20, 20000, 3), np.uint8))).shape == (3, 20, 20000)
    assert resize(as_image(np.zeros((4000, 4, 3), np.uint8))).shape == (3, MAX_SIDE, 16)


def test_weights_lie_where_the_image_shows_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = np.zeros((40, 60), bool)
    said[10:30, 20:45] = True
    image = np.where(said[..., None], np.uint8(250), np.uint8(5)).repeat(3, 2)
    index = painted(tmp_path, image, ("a",), (0,))
    emphasis = Emphasis(lambda name, size: said if size == (40, 60) else np.zeros(0), 2.5)
    for outside, maps in ((255, said.astype(np.uint8)), (0, said.astype(np.float16))):
        monkeypatch.setattr(Crops, "OUTSIDE", outside)
        samples = Crops(index, ["p"], RandomScale(0.7, 1.4), 48, MEAN, emphasis=emphasis)
        for seed in range(5):
            torch.manual_seed(seed)
            shown, cut, (weights,) = samples.augmented("p", maps[None])
            torch.manual_seed(seed)
            plain = replace(samples, emphasis=None).augmented("p", maps[None])
            assert torch.equal(plain[0], shown)
            assert torch.equal(plain[1], cut)
            assert plain[2] == []
            assert set(weights.unique().tolist()) == {1.0, 2.5}
            assert torch.equal(weights == 2.5, cut[0] == 1)
            assert ((weights == 2.5) == (shown[0] > 128)).float().mean() > 0.97
