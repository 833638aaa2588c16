"""What class maps learn from prompted masks: the formula, what is left out, its gradients."""

import math

import pytest
import torch
from torch.nn import functional as F

from pipeline.classifiers.s2c.consistency import FLOOR, map_loss
from pipeline.core.artifacts import IGNORE

INSIDE = torch.ones(1, 4, 4, dtype=torch.bool)


def test_a_map_that_equals_its_mask_costs_log_1_plus_1_over_e_a_class() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.uint8)
    labels[0, 1:3, 1:3] = 3
    maps = torch.full((1, 3, 4, 4), -5.0)
    maps[0, 2] = torch.where(labels[0] == 3, 8.0, -2.0)
    loss = map_loss(maps, torch.tensor([[0.0, 0, 1]]), labels, INSIDE)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)), rel=1e-6)


def test_the_formula_by_hand() -> None:
    """Two classes, no enlargement: S^c = ReLU(A^c) / max, S^0 = 1 - max_c S^c, softmax over the
    three.
    """
    maps = torch.tensor([[[[4.0, -1.0]], [[1.0, 2.0]]]])
    labels = torch.tensor([[[1, 0]]], dtype=torch.uint8)
    loss = map_loss(maps, torch.ones(1, 2), labels, torch.ones(1, 1, 2, dtype=torch.bool))
    first = math.log(sum(map(math.exp, (0, 1, 0.5)))) - 1
    second = math.log(sum(map(math.exp, (0, 0, 1)))) - 0
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_absent_classes_are_no_competitors_and_get_no_gradient() -> None:
    torch.manual_seed(0)
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


def test_the_loss_does_not_depend_on_the_scale_of_a_map_so_it_cannot_raise_its_logit() -> None:
    torch.manual_seed(0)
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


def test_ignored_pixels_do_not_count() -> None:
    torch.manual_seed(0)
    maps = torch.rand(1, 1, 4, 4) + 0.5
    maps[0, 0, 3, 3] = 2
    labels = torch.randint(0, 2, (1, 4, 4), dtype=torch.uint8)
    half = labels.clone()
    half[:, :2] = IGNORE
    scores = maps / 2
    logits = torch.cat([1 - scores, scores], 1)
    expected = F.cross_entropy(logits[:, :, 2:], labels[:, 2:].long())
    assert float(map_loss(maps, torch.ones(1, 1), half, INSIDE)) == pytest.approx(
        float(expected), rel=1e-6
    )


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


def test_images_without_labels_or_tags_contribute_nothing_and_a_batch_is_the_mean_of_its_images() -> (
    None
):
    torch.manual_seed(0)
    maps, tags = (
        torch.randn(4, 3, 4, 4),
        torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]]),
    )
    labels = (
        torch.randint(0, 2, (4, 64, 64), dtype=torch.uint8)
        * torch.tensor([3, 2, 0, 2], dtype=torch.uint8)[:, None, None]
    )
    labels[1] = IGNORE
    inside = torch.ones(4, 64, 64, dtype=torch.bool)
    single = [
        float(map_loss(*(part[i : i + 1] for part in (maps, tags, labels, inside))))
        for i in range(4)
    ]
    assert (single[1], single[2]) == (0, 0)
    assert min(single[0], single[3]) > 0.1
    assert float(map_loss(maps, tags, labels, inside)) == pytest.approx(sum(single) / 4, rel=1e-6)


@pytest.mark.parametrize("classes", [1, 2, 254])
def test_any_number_of_classes(classes: int) -> None:
    torch.manual_seed(0)
    maps = torch.randn(1, classes, 4, 4)
    labels = torch.full((1, 64, 64), classes, dtype=torch.uint8)
    tags = torch.zeros(1, classes)
    tags[0, -1] = 1
    loss = map_loss(maps, tags, labels, torch.ones(1, 64, 64, dtype=torch.bool))
    assert math.log1p(math.exp(-1)) <= loss.item() <= math.log1p(math.e)


def test_gradients() -> None:
    torch.manual_seed(0)
    maps = (torch.rand(2, 3, 3, 4, dtype=torch.float64) * 4 + 0.1).requires_grad_()
    labels = torch.tensor([0, 1, 3, IGNORE], dtype=torch.uint8)[torch.randint(0, 4, (2, 48, 64))]
    inside = torch.ones(2, 48, 64, dtype=torch.bool)
    tags = torch.tensor([[1.0, 0, 1], [1, 1, 1]])
    assert torch.autograd.gradcheck(lambda m: map_loss(m, tags, labels, inside), (maps,))
