"""Puzzle-CAM: tiles, the reconstruction loss and its ramp, and defects of the published code."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pipeline.classifiers.base import TrainingData
from pipeline.classifiers.puzzlecam import (
    GridError,
    PuzzleCam,
    PuzzleCamLoss,
    Reduction,
    merge,
    reconstruction_loss,
    reconstruction_weight,
    tile,
)
from pipeline.errors import UserError
from pipeline.nets.backbones import Backbone
from tests.classifiers.base import SMALL, ClassifierTester, random_images, step

REDUCTIONS: tuple[Reduction, ...] = ("present", "all")
GRIDS = [(2, 2), (1, 1), (3, 1), (1, 4), (2, 3)]


class TestPuzzleCam(ClassifierTester):
    method = "puzzlecam"
    options = {"ramp": 0.0}
    falling = ("loss", "cls", "p_cls")


class FixedMaps(nn.Module):
    """A network that returns these maps."""

    def __init__(self, whole: Tensor, merged: Tensor) -> None:
        super().__init__()
        self.whole, self.merged = whole, merged

    def forward(self, images: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        return self.whole, self.merged


@pytest.mark.parametrize("grid", GRIDS)
def test_merging_undoes_tiling(grid: tuple[int, int]) -> None:
    images = torch.randn(3, 5, 12, 24)
    tiles = tile(images, grid)
    assert tiles.shape == (3 * grid[0] * grid[1], 5, 12 // grid[0], 24 // grid[1])
    assert torch.equal(merge(tiles, grid), images)


def test_tiles_are_the_quarters_of_each_image() -> None:
    images = torch.randn(2, 3, 8, 6)
    quarters = [
        images[..., rows, columns]
        for rows in (slice(4), slice(4, 8))
        for columns in (slice(3), slice(3, 6))
    ]
    assert torch.equal(tile(images, (2, 2)), torch.cat(quarters))


def test_tiles_do_not_see_each_other_and_their_maps_return_to_their_place() -> None:
    torch.manual_seed(0)
    network, images = PuzzleCam(3, Backbone(SMALL)).eval(), random_images(2)
    whole, merged = network(images, (2, 2))
    normalized, tags = network.backbone.normalize(images), torch.ones(2, 3)
    assert torch.allclose(whole, network.maps(normalized, tags), atol=1e-6)
    for y in (0, 1):
        for x in (0, 1):
            part = normalized[..., 32 * y : 32 * y + 32, 32 * x : 32 * x + 32]
            place = merged[..., 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            assert torch.allclose(place, network.maps(part, tags), atol=1e-6)
    assert not torch.allclose(whole, merged, atol=1e-3)
    tiles = network.backbone.normalize(tile(images, (2, 2)))
    means = network.maps(tiles, torch.ones(8, 3)).mean((2, 3))
    assert torch.allclose(merged.mean((2, 3)), means.view(4, 2, 3).mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("progress", "ramp", "expected"),
    [
        (0.0, 0.5, 0),
        (0.25, 0.5, 2),
        (0.5, 0.5, 4),
        (0.99, 0.5, 4),
        (0.0, 0.0, 4),
        (0.7, 0.0, 4),
        (0.5, 1.0, 2),
    ],
)
def test_alpha_rises_over_the_ramp_and_stays(progress: float, ramp: float, expected: float) -> None:
    assert reconstruction_weight(progress, 4, ramp) == expected


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 0.9])
def test_loss_is_the_sum_of_its_terms_by_hand(progress: float) -> None:
    torch.manual_seed(0)
    whole, merged = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    loss_fn = PuzzleCamLoss((2, 2), 4.0, 0.5, "present")
    terms = loss_fn(FixedMaps(whole, merged), (random_images(2), tags), step(progress))
    by_hand = []
    for maps in (whole, merged):
        logits = maps.mean((2, 3))
        present, absent = logits.sigmoid().log(), (-logits).sigmoid().log()
        by_hand.append(-(tags * present + (1 - tags) * absent).mean())
    gap = (whole - merged).abs()
    re = ((gap[0, 0].mean() + gap[0, 2].mean()) / 2 + gap[1, 1].mean()) / 2
    total = by_hand[0] + by_hand[1] + min(8 * progress, 4) * re
    assert list(terms) == ["loss", "cls", "p_cls", "re"]
    values = [value.item() for value in terms.values()]
    assert values == pytest.approx(
        [total.item(), *(v.item() for v in by_hand), re.item()], rel=1e-5
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_both_sides_of_present_classes_learn_and_absent_ones_do_not(reduction: Reduction) -> None:
    whole, merged = (torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(2))
    tags = torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    reconstruction_loss(whole, merged, tags, reduction).backward()
    assert whole.grad is not None
    assert merged.grad is not None
    assert (whole.grad.abs().sum((2, 3)) > 0).tolist() == [[True, False, True], [False] * 3]
    assert torch.equal(whole.grad, -merged.grad)


def test_mean_over_all_classes_weighs_one_class_of_twenty_a_twentieth() -> None:
    """The published reduction; `present` weighs every image the same."""
    whole, merged = torch.zeros(1, 20, 4, 4), torch.ones(1, 20, 4, 4)
    one, every = torch.eye(20)[:1], torch.ones(1, 20)
    assert reconstruction_loss(whole, merged, one, "all").item() == pytest.approx(1 / 20)
    assert reconstruction_loss(whole, merged, every, "all").item() == pytest.approx(1)
    assert reconstruction_loss(whole, merged, one, "present").item() == pytest.approx(1)
    assert reconstruction_loss(whole, merged, every, "present").item() == pytest.approx(1)


@pytest.mark.defect("puzzlecam-5")
@pytest.mark.parametrize(
    ("crop", "grid", "working"),
    [(250, (2, 2), 256), (256, (3, 1), 240), (20, (2, 2), 32), (64, (2, 3), 96)],
)
def test_odd_crop_sizes_are_refused_with_one_that_works(
    data: TrainingData, crop: int, grid: tuple[int, int], working: int
) -> None:
    """The published code drops or mixes up the pixels of a remainder."""
    message = rf"classifier\.crop, classifier\.puzzlecam\.grid.* such as {working}$"
    with pytest.raises(GridError, match=message) as error:
        PuzzleCam.loss_fn(replace(data, crop=crop), grid, 4.0, 0.5, "present")
    assert isinstance(error.value, UserError)
    PuzzleCam.loss_fn(replace(data, crop=working), grid, 4.0, 0.5, "present")
