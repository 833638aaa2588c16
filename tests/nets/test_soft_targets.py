"""Soft targets: closed forms of both terms, targets of maps and labels, crops."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.augmentation import RandomScale
from pipeline.labelling.pseudo_labels import class_maps, pseudo_labels
from pipeline.nets.deeplab import segmentation_loss
from pipeline.nets.soft_targets import (
    SoftCrops,
    collision,
    from_labels,
    from_maps,
    inside_segments,
    pairwise,
    soft_loss,
)
from tests.support.sources import painted
from tests.support.steps import FixedLogits, single_rank

SHAPE = (2, 4, 5, 6)


def drawn(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, generator=generator, dtype=torch.float64).requires_grad_()


def test_one_hot_targets_give_the_negative_log_likelihood() -> None:
    logits, labels = drawn(0), drawn(1).argmax(1)
    found = collision(logits, F.one_hot(labels, 4).permute(0, 3, 1, 2).double())
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, reduction="none"))


def test_uniform_targets_cost_the_log_of_the_labels_and_teach_nothing() -> None:
    logits = drawn(0)
    found = collision(logits, torch.full(SHAPE, 0.25, dtype=torch.float64))
    torch.testing.assert_close(found, torch.full_like(found, math.log(4)))
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-12


def test_unknown_pixels_cost_and_teach_nothing() -> None:
    logits, targets = drawn(0), drawn(1).detach().softmax(1)
    targets[0, :, :2] = 0
    found = collision(logits, targets)
    found.sum().backward()
    assert logits.grad is not None
    assert not found[0, :2].any()
    assert not logits.grad[0, :, :2].any()
    assert found[1].min() > 0
    assert logits.grad[1].abs().min() > 0


def test_the_pairwise_term_counts_changes_of_label_inside_of_segments() -> None:
    labels = torch.zeros(1, 4, 6, dtype=torch.long)
    labels[..., 3:] = 1
    logits = 100 * F.one_hot(labels, 2).permute(0, 3, 1, 2).double()
    everywhere = torch.ones(1, 4, 6, dtype=torch.bool)
    assert [float(value) for value in pairwise(logits, everywhere)] == [4, 3 * 6 + 4 * 5]
    cut = everywhere.clone()
    cut[..., 2:4] = False
    total, count = pairwise(logits, cut)
    assert (float(total), int(count)) == (0, 2 * (3 * 2 + 4))
    assert pairwise(torch.ones_like(logits), everywhere)[0] == 0


def test_no_gradient_crosses_a_border() -> None:
    inside = torch.ones(2, 5, 6, dtype=torch.bool)
    inside[..., 3] = False
    logits = drawn(0)
    pairwise(logits, inside)[0].backward()
    assert logits.grad is not None
    assert not logits.grad[..., 3].any()
    assert logits.grad[..., [0, 1, 2, 4, 5]].abs().amax(1).min() > 0


def test_the_loss_is_the_hard_one_for_labels_plus_the_weighted_pairs() -> None:
    step = single_rank()
    logits, labels = drawn(0).detach().float(), drawn(1).argmax(1)
    labels[0, :2] = 255
    network = FixedLogits(logits)
    images = torch.zeros(2, 3, 5, 6)
    one_hot = torch.stack([(labels == label) for label in range(4)], 1).half()
    inside = torch.ones(2, 5, 6, dtype=torch.bool)
    inside[1] = False
    hard = segmentation_loss(network, (images, labels), step)["loss"]
    for boundary in (0.0, 3.0):
        found = soft_loss(network, (images, one_hot, inside), step, boundary)["loss"]
        total, count = pairwise(logits, inside)
        torch.testing.assert_close(found, hard + boundary * total / count)
    nothing = images, torch.zeros_like(one_hot), torch.zeros_like(inside)
    assert soft_loss(network, nothing, step, 1.0)["loss"] == 0


@pytest.mark.parametrize("soft", [False, True])
def test_a_pixel_of_weight_3_counts_as_three(soft: bool) -> None:
    logits, labels = drawn(0).detach().float(), drawn(1).argmax(1)
    labels[0, 0] = 255
    one_hot = torch.stack([labels == label for label in range(4)], 1).half()
    maps = [one_hot, torch.zeros(2, 5, 6, dtype=torch.bool)] if soft else [labels]

    def loss(logits: Tensor, *batch: Tensor) -> Tensor:
        step, samples = single_rank(), (torch.zeros(2), *batch)
        if soft:
            return soft_loss(FixedLogits(logits), samples, step, 0)["loss"]
        return segmentation_loss(FixedLogits(logits), samples, step)["loss"]

    weights = torch.ones(2, 5, 6)
    torch.testing.assert_close(loss(logits, *maps, weights), loss(logits, *maps))
    weights[..., 2:] = 3
    copied = [torch.cat([part, *2 * [part[..., 2:]]], -1) for part in (logits, *maps)]
    torch.testing.assert_close(loss(logits, *maps, weights), loss(*copied))
    assert loss(logits, *maps, weights) != loss(logits, *maps)


def test_the_likeliest_target_is_the_pseudo_label() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((3, 6, 8)).astype(np.float16)
    record = {
        "maps": maps,
        "background": np.zeros((6, 8), np.float16),
        "classes": np.array([4, 1, 4]),
        "size": np.array([22, 31]),
    }
    rules: dict[str, Any] = {"normalize": "class", "min_area": 0.0, "boundary_threshold": 1.0}
    hard = pseudo_labels(record, np.zeros((6, 8)), background=0.5, **rules)["semantic"]
    targets, labels = from_maps(*class_maps(record, "class"), 0.5)
    assert labels.tolist() == [0, 2, 5]
    np.testing.assert_allclose(targets.sum(0), 1, atol=1e-6)
    assert np.array_equal(labels[targets.argmax(0)], hard)
    assert len(np.unique(hard)) == 3


def test_an_image_without_classes_is_background() -> None:
    targets, labels = from_maps(np.zeros((0, 3, 4)), np.zeros(0, np.uint8), 0.0)
    assert labels.tolist() == [0]
    assert (targets == 1).all()


def test_labels_become_one_hot_and_ignored_pixels_nothing() -> None:
    targets, labels = from_labels(np.array([[0, 3], [255, 3]], np.uint8))
    assert labels.tolist() == [0, 3]
    assert targets.tolist() == [[[1, 0], [0, 0]], [[0, 1], [0, 1]]]


def test_borders_are_dilated_on_both_sides() -> None:
    segments = np.ones((7, 12), np.uint16)
    segments[:, 6:] = 2
    inside = inside_segments(segments)
    assert (~inside).nonzero()[1].reshape(7, -1).tolist() == [[4, 5, 6, 7]] * 7
    assert np.array_equal(inside_segments(segments[:, ::-1].copy()), inside[:, ::-1])
    assert inside_segments(np.zeros((4, 5), np.uint16)).all()


def test_crops_targets_and_segments_stay_together(tmp_path: Path) -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[10:40, 15:45] = 2
    table = np.array([[10, 40, 10], [0, 0, 0], [220, 30, 40]], np.uint8)
    crops = SoftCrops(
        painted(tmp_path, table[labels], ("a", "b"), (1,)),
        ["p"],
        RandomScale(0.75, 1.5),
        64,
        (0.5,) * 3,
        lambda _: from_labels(labels),
        lambda _: labels > 0,
    )
    assert len(crops) == 1
    for seed in range(10):
        torch.manual_seed(seed)
        image, targets, inside = crops[0]
        assert (tuple(targets.shape), targets.dtype) == ((3, 64, 64), torch.float16)
        assert torch.equal(inside, targets[2] > 0)
        assert not targets[1].any()
        red = image[0].float() > 170
        # images are resized bicubically, targets by nearest neighbor
        assert (red == inside).float().mean() > 0.95
        outside = targets.sum(0) == 0
        gray = (image.float() - 128).abs().amax(0) < 2
        assert (outside == gray).float().mean() > 0.95


@pytest.mark.parametrize("background", [0.1, 0.5])
def test_targets_take_the_side_of_the_threshold(background: float) -> None:
    maps = np.linspace(0, 1, 11, dtype=np.float32).reshape(1, 1, 11)
    targets, _ = from_maps(maps, np.array([0]), background)
    np.testing.assert_allclose(targets[1], (maps / (maps + background))[0], atol=1e-6)
