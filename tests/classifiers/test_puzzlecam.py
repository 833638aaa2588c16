"""Puzzle-CAM: tiles, the reconstruction loss and its ramp, and defects of the published code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.classifiers.base import TrainingData
from pipeline.classifiers.puzzlecam import (
    GridError,
    Level,
    PuzzleCam,
    PuzzleCamLoss,
    Reduction,
    away_from_seams,
    check_grid,
    merge,
    reconstruction_loss,
    reconstruction_weight,
    tile,
)
from pipeline.errors import UserError
from pipeline.nets.backbones import Backbone
from tests.classifiers.base import SMALL, ClassifierTester, random_images, step

REDUCTIONS: tuple[Reduction, ...] = ("present", "all")
LEVELS: tuple[Level, ...] = ("cam", "feature")
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "authors" / "puzzlecam_reconstruction.npz"
"""The authors' reconstruction loss on given maps, at both levels, with its gradients."""
GRIDS = [(2, 2), (1, 1), (3, 1), (1, 4), (2, 3)]


class TestPuzzleCam(ClassifierTester):
    method = "puzzlecam"
    options = {"ramp": 0.0, "alpha": 1.0}
    falling = ("loss", "cls", "p_cls")


def reconstruction(
    whole: Tensor,
    merged: Tensor,
    tags: Tensor,
    reduction: Reduction = "present",
    level: Level = "feature",
    margin: int = 0,
) -> Tensor:
    counted = away_from_seams(whole, (2, 2), margin)
    return reconstruction_loss(whole, merged, tags, reduction, level, counted)


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
    loss_fn = PuzzleCamLoss((2, 2), 4.0, 0.5, "present", "feature", 0)
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


@pytest.mark.parametrize("level", LEVELS)
def test_golden_losses_and_gradients(level: Level) -> None:
    golden = {name: torch.from_numpy(value) for name, value in np.load(GOLDEN).items()}
    sides = [golden[side].requires_grad_() for side in ("whole", "merged")]
    loss = reconstruction(sides[0], sides[1], golden["tags"], "all", level)
    assert loss.item() == pytest.approx(golden[f"loss_{level}"].item(), rel=1e-5)
    for side, gradient in zip(("whole", "merged"), torch.autograd.grad(loss, sides), strict=True):
        expected = golden[f"grad_{side}_{level}"]
        assert (gradient - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("margin", [0, 1])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_both_sides_of_present_classes_learn_and_absent_ones_do_not(
    reduction: Reduction, level: Level, margin: int
) -> None:
    torch.manual_seed(0)
    sides = [torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    tags = torch.tensor([[1.0, 0, 1], [0, 0, 0]])

    def loss(whole: Tensor, merged: Tensor) -> Tensor:
        return reconstruction(whole, merged, tags, reduction, level, margin)

    gradients = torch.autograd.grad(loss(*sides), sides)
    for gradient in gradients:
        present = gradient.abs().sum((2, 3)) > 0
        assert present.tolist() == [[True, False, True], [False] * 3]
    assert torch.autograd.gradcheck(loss, sides)


def test_cam_level_compares_what_is_positive_as_a_share_of_its_maximum() -> None:
    """Neither the scale of the maps nor what lies below 0 matters; at level `feature` both do."""
    whole = torch.tensor([8.0, 4, 0, -8]).view(1, 1, 2, 2)
    merged = torch.tensor([0.5, 1, -3, 0]).view(1, 1, 2, 2)
    tags = torch.ones(1, 1)
    for factor in (1, 100):
        loss = reconstruction(whole, merged * factor, tags, level="cam")
        assert loss.item() == pytest.approx((0.5 + 0.5) / 4, rel=1e-4)
    by_hand = (7.5 + 3 + 3 + 8) / 4
    assert reconstruction(whole, merged, tags, level="feature").item() == by_hand


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("present", "classes"), [(1, 20), (2, 20), (3, 6)])
def test_alpha_with_present_is_alpha_times_classes_by_present_ones_with_all(
    level: Level, present: int, classes: int
) -> None:
    torch.manual_seed(0)
    whole, merged = torch.randn(2, 2, classes, 4, 4)
    tags = (torch.arange(classes) < present).float().expand(2, -1)
    total = {}
    for reduction, alpha in (("present", 4.0), ("all", 4.0 * classes / present)):
        loss_fn = PuzzleCamLoss((2, 2), alpha, 0.0, reduction, level, 0)  # type: ignore[arg-type]
        terms = loss_fn(FixedMaps(whole, merged), (random_images(2), tags), step())
        total[reduction] = terms["loss"].item()
    assert total["present"] == pytest.approx(total["all"], rel=1e-6)


@pytest.mark.parametrize(
    ("grid", "margin", "rows"),
    [
        ((2, 2), 0, "111111"),
        ((2, 1), 1, "110011"),
        ((2, 1), 2, "100001"),
        ((3, 1), 1, "100001"),
        ((1, 2), 1, "111111"),
    ],
)
def test_margin_leaves_out_cells_on_both_sides_of_inner_seams(
    grid: tuple[int, int], margin: int, rows: str
) -> None:
    counted = away_from_seams(torch.zeros(1, 1, 6, 4), grid, margin)
    assert "".join(str(int(value)) for value in counted.amax(1)) == rows
    if grid[1] == 1:
        assert torch.equal(counted, counted[:, :1].expand(-1, 4))


def test_cells_within_the_margin_have_no_part_in_the_loss() -> None:
    whole, merged = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    merged[..., 1:3, :] = merged[..., :, 1:3] = 100.0
    assert reconstruction(whole, merged, torch.ones(1, 1), margin=1).item() == 1
    assert reconstruction(whole, merged, torch.ones(1, 1)).item() == (4 + 12 * 100) / 16


@pytest.mark.defect("puzzlecam-5")
@pytest.mark.parametrize(
    ("crop", "grid", "working"),
    [(250, (2, 2), 256), (256, (3, 1), 240), (20, (2, 2), 32), (64, (2, 3), 96)],
)
def test_odd_crop_sizes_are_refused_with_one_that_works(
    crop: int, grid: tuple[int, int], working: int
) -> None:
    """The published code drops or mixes up the pixels of a remainder."""
    message = rf"classifier\.crop, classifier\.puzzlecam\.grid.* such as {working}$"
    with pytest.raises(GridError, match=message) as error:
        check_grid(crop, grid, 0)
    assert isinstance(error.value, UserError)
    check_grid(working, grid, 0)


def test_margin_that_covers_the_tiles_is_refused(data: TrainingData) -> None:
    message = r"puzzlecam\.margin: 3 covers tiles of 3 cells; use 0 to 2$"
    with pytest.raises(GridError, match=message):
        TestPuzzleCam().loss_fn(data, grid=(2, 1), margin=3)
    TestPuzzleCam().loss_fn(data, grid=(2, 1), margin=2)
