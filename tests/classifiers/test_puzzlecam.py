"""Puzzle-CAM: tiles, the reconstruction loss and its ramp, and defects of the published code."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.classifiers.base import TrainingData
from pipeline.classifiers.cam import Cam
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


class Pointwise(nn.Module):
    """Features that depend on one pixel alone; whole numbers, so that float32 adds them without
    rounding in any order.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 1)
        for parameter in self.conv.parameters():
            parameter.data = torch.randint(-2, 3, parameter.shape).float()

    def normalize(self, images: Tensor) -> Tensor:
        return images.float()

    def forward(self, normalized: Tensor) -> list[Tensor]:
        return [self.conv(normalized)]


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
    network, images = PuzzleCam(3, SMALL).eval(), random_images(2)
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


@pytest.mark.parametrize("grid", GRIDS[:4])
def test_network_of_single_pixels_has_nothing_to_reconstruct(grid: tuple[int, int]) -> None:
    network = PuzzleCam(4, SMALL)
    network.backbone = Pointwise(network.backbone.channels[-1])  # type: ignore[assignment]
    weight = network.head.get_parameter("weight")
    with torch.no_grad():
        weight.copy_(torch.randint(-2, 3, weight.shape))
    whole, merged = network(random_images(2, 48, 48), grid)
    assert torch.equal(whole, merged)
    for reduction in REDUCTIONS:
        assert reconstruction_loss(whole, merged, torch.ones(2, 4), reduction) == 0


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


def test_classification_of_whole_images_is_bitwise_cams() -> None:
    torch.manual_seed(0)
    plain, network = Cam(3, SMALL).eval(), PuzzleCam(3, SMALL).eval()
    network.load_state_dict(plain.state_dict())
    images, tags = random_images(2), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    terms = PuzzleCamLoss((2, 2), 0.0, 0.5, "present")(network, (images, tags), step(0.9))
    alone = F.multilabel_soft_margin_loss(plain(images), tags)
    assert torch.equal(terms["cls"], alone)
    assert torch.equal(terms["loss"], terms["cls"] + terms["p_cls"])
    terms["cls"].backward()
    alone.backward()
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.equal(ours.grad, theirs.grad)
    normalized = plain.backbone.normalize(images)
    assert torch.equal(network.maps(normalized, tags), plain.maps(normalized, tags))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_both_sides_of_present_classes_learn_and_absent_ones_do_not(reduction: Reduction) -> None:
    whole, merged = (torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(2))
    tags = torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    reconstruction_loss(whole, merged, tags, reduction).backward()
    assert whole.grad is not None
    assert merged.grad is not None
    assert (whole.grad.abs().sum((2, 3)) > 0).tolist() == [[True, False, True], [False] * 3]
    assert torch.equal(whole.grad, -merged.grad)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradient_of_the_reconstruction_loss(reduction: Reduction) -> None:
    torch.manual_seed(0)
    whole, merged = (
        torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda a, b: reconstruction_loss(a, b, tags, reduction), (whole, merged)
    )


def test_mean_over_all_classes_weighs_one_class_of_twenty_a_twentieth() -> None:
    """The published reduction; `present` weighs every image the same."""
    whole, merged = torch.zeros(1, 20, 4, 4), torch.ones(1, 20, 4, 4)
    one, every = torch.eye(20)[:1], torch.ones(1, 20)
    assert reconstruction_loss(whole, merged, one, "all").item() == pytest.approx(1 / 20)
    assert reconstruction_loss(whole, merged, every, "all").item() == pytest.approx(1)
    assert reconstruction_loss(whole, merged, one, "present").item() == pytest.approx(1)
    assert reconstruction_loss(whole, merged, every, "present").item() == pytest.approx(1)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reconstruction_of_a_batch_is_the_mean_of_its_images(reduction: Reduction) -> None:
    """Images of three classes, one, and none: nothing depends on the rest of the batch."""
    torch.manual_seed(0)
    whole, merged = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    tags = torch.tensor([[1.0, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]])
    single = [
        reconstruction_loss(whole[None, n], merged[None, n], tags[None, n], reduction).item()
        for n in range(3)
    ]
    together = reconstruction_loss(whole, merged, tags, reduction).item()
    assert together == pytest.approx(sum(single) / 3, rel=1e-5)
    assert single[2] == 0


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


@pytest.mark.parametrize("classes", [1, 254])
@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_images(classes: int, count: int) -> None:
    """The published merge takes the batch size from the command line, so that the last batch must
    be dropped.
    """
    network = PuzzleCam(classes, SMALL).eval()
    whole, merged = network(random_images(count), (2, 2))
    assert whole.shape == merged.shape == (count, classes, 4, 4)
