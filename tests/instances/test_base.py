"""Masks on disk, and training crops: numbering, ignored pixels, weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.data.augmentation import RandomScale
from pipeline.data.instance_masks import exclusive, masks_of, pack, unpack
from pipeline.instances.base import (
    OUTSIDE,
    InstanceCrops,
    TrainingInstances,
    renumber,
    select_instances,
)
from tests.support.sources import painted

MEAN = (0.5, 0.5, 0.5)
COLORS = np.array([[10, 40, 10], [220, 30, 40], [30, 60, 230], [240, 230, 20]], np.uint8)
IDS = np.array([[0, 1, 2], [0, 0, 2]], np.uint16)
SEMANTIC = np.array([[0, 3, 1], [255, 1, 1]], np.uint8)
CLASSES, WEIGHTS = np.array([2, 0], np.uint8), np.array([0.9, 0.2], np.float32)


@pytest.mark.parametrize("size", [(0, 3, 9), (1, 1, 1), (3, 5, 8), (2, 4, 17)])
def test_bits_give_the_masks_back(size: tuple[int, int, int]) -> None:
    masks = np.random.default_rng(0).random(size) < 0.5
    bits = pack(masks)
    assert bits.shape == (*size[:2], -(-size[2] // 8))
    np.testing.assert_array_equal(unpack(bits, size[2]), masks)


def test_instance_without_pixels_keeps_its_place() -> None:
    ids = np.array([[0, 2]], np.uint16)
    masks = masks_of({"instances": ids, "classes": np.array([0, 0], np.uint8), "semantic": ids})
    assert masks.sum((1, 2)).tolist() == [0, 1]


def test_masks_without_instances() -> None:
    nothing = {"classes": np.zeros(0, np.uint8), "semantic": np.zeros((4, 5), np.uint8)}
    assert masks_of({"instances": np.zeros((4, 5), np.uint16), **nothing}).shape == (0, 4, 5)
    assert masks_of({"instances": pack(np.zeros((0, 4, 5), bool)), **nothing}).shape == (0, 4, 5)
    assert not exclusive(np.zeros((0, 4, 5), bool), np.zeros(0)).any()


def test_higher_score_is_in_front() -> None:
    masks = np.array([[[1, 1, 0, 1]], [[0, 1, 1, 0]], [[0, 0, 0, 1]]], bool)
    assert exclusive(masks, np.array([0.2, 0.9, 0.2])).tolist() == [[1, 2, 2, 1]]


@pytest.mark.parametrize(
    ("ids", "semantic", "kept", "expected"),
    [
        (IDS, SEMANTIC, [True, True], [[0, 1, 2], [OUTSIDE, OUTSIDE, 2]]),
        (IDS, SEMANTIC, [True, False], [[0, 1, OUTSIDE], [OUTSIDE] * 3]),
        (IDS, 0 * SEMANTIC, [True, False], [[0, 1, OUTSIDE], [0, 0, OUTSIDE]]),
        (0 * IDS, SEMANTIC, [], [[0, OUTSIDE, OUTSIDE], [OUTSIDE] * 3]),
    ],
    ids=["all", "one left out", "where no class won", "no instances"],
)
def test_void_and_objects_without_an_instance_are_ignored(
    ids: np.ndarray, semantic: np.ndarray, kept: list[bool], expected: list[list[int]]
) -> None:
    """They are not background."""
    found = select_instances(ids, CLASSES, WEIGHTS, semantic, np.array(kept, bool))
    assert found.ids.tolist() == expected


def instances(ignored: bool = False) -> TrainingInstances:
    """Three instances of classes 4, 1 and 4, painted in COLORS; the third may be ignored."""
    ids = np.zeros((72, 96), np.int32)
    ids[10:40, 8:40], ids[24:64, 56:88], ids[50:60, 10:20] = 1, 2, OUTSIDE if ignored else 3
    return TrainingInstances(
        ids, np.array([4, 1, 4], np.uint8), np.array([1.0, 0.5, 0.25], np.float32)
    )


def crops(
    folder: Path, given: TrainingInstances, crop: int = 64, scale: float = 1.0
) -> InstanceCrops:
    index = painted(folder, COLORS[given.ids], "abcdef", (1, 4))
    return InstanceCrops(index, ["p"], RandomScale(scale, scale), crop, MEAN, lambda name: given)


@pytest.mark.parametrize("scale", [1.0, 0.7, 1.4])
def test_ids_lie_where_the_colors_do_and_carry_their_classes(tmp_path: Path, scale: float) -> None:
    samples = crops(tmp_path, instances(), scale=scale)
    assert len(samples) == 1
    seen = set()
    for seed in range(10):
        torch.manual_seed(seed)
        image, ids, classes, weights = samples[0]
        assert [
            (type(part), part.dtype, tuple(part.shape)) for part in (image, ids, classes, weights)
        ] == [
            (Tensor, torch.uint8, (3, 64, 64)),
            (Tensor, torch.uint8, (64, 64)),
            (Tensor, torch.uint8, (100,)),
            (Tensor, torch.float32, (100,)),
        ]
        count = int((classes != 255).sum())
        assert sorted(set(ids.unique().tolist()) - {0, 255}) == list(range(1, count + 1))
        assert (classes[count:] == 255).all()
        assert not weights[count:].any()
        palette = torch.from_numpy(np.vstack([COLORS, [[128, 128, 128]]])).long()
        distance = (image.permute(1, 2, 0).long()[:, :, None] - palette).abs().sum(-1)
        clear, nearest = distance.amin(-1) < 30, distance.argmin(-1)
        for number in range(1, count + 1):
            inside = nearest[ids == number]
            original = int(inside.mode().values)
            assert (inside == original).float().mean() > 0.7  # borders are blended by resizing
            assert (int(classes[number - 1]), float(weights[number - 1])) == {
                1: (4, 1.0),
                2: (1, 0.5),
                3: (4, 0.25),
            }[original]
            seen.add(original)
        assert (nearest[ids == 255] == 4).all()
        assert (nearest[(ids == 0) & clear] == 0).float().mean() > 0.97
    assert seen == {1, 2, 3}


def test_ignored_pixels_and_those_outside_are_ignored(tmp_path: Path) -> None:
    torch.manual_seed(0)
    _, ids, classes, _ = crops(tmp_path, instances(ignored=True), crop=128)[0]
    assert int((ids == 255).sum()) == 128 * 128 - 72 * 96 + 100
    assert sorted(classes[classes != 255].tolist()) == [1, 4]


def test_of_too_many_the_largest_are_kept_and_the_others_ignored() -> None:
    ids = torch.zeros(40, 40, dtype=torch.int32)
    for number, size in ((300, 3), (7, 9), (41, 5), (12, 4)):
        ids[size, :size] = number
    classes = np.arange(300, dtype=np.int64) % 200
    numbered, kept, weights = renumber(
        ids, TrainingInstances(ids.numpy(), classes, np.linspace(0, 1, 300)), 2
    )
    assert kept.tolist() == [6, 40]
    assert weights.tolist() == pytest.approx([6 / 299, 40 / 299])
    assert [int((numbered == value).sum()) for value in (1, 2, 255)] == [9, 5, 7]
    assert not numbered[ids == 0].any()


@pytest.mark.parametrize("value", [0, -1])
def test_crop_without_instances(value: int) -> None:
    ids = torch.full((8, 8), value, dtype=torch.int32)
    nothing = TrainingInstances(ids.numpy(), np.empty(0, np.uint8), np.empty(0, np.float32))
    numbered, classes, weights = renumber(ids, nothing, 3)
    assert (numbered == (0 if value == 0 else 255)).all()
    assert (classes == 255).all()
    assert not weights.any()
