"""Puzzle-CAM: tiles and their way back, the reconstruction loss and its ramp, and what of it the
published code got wrong.
"""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.classifiers.base import TaggedCrops, TrainingData
from pipeline.classifiers.cam.network import Network as Plain
from pipeline.classifiers.puzzlecam.network import Network, merge, tile
from pipeline.classifiers.puzzlecam.training import (
    GridError,
    Reduction,
    objective,
    reconstruction_loss,
    reconstruction_weight,
    samples,
)
from pipeline.core.trainer import Ranks, Step
from pipeline.data.index import Index
from pipeline.errors import UserError
from pipeline.nets.backbones import fix_batch_norm

SMALL = "test_resnet"
REDUCTIONS: tuple[Reduction, ...] = ("present", "all")
GRIDS = [(2, 2), (1, 1), (3, 1), (1, 4), (2, 3)]


def material(crop: int = 64) -> TrainingData:
    return TrainingData(Index((), [], Path(), Path(), {}), [], (1, 1), crop, (0.5, 0.5, 0.5))


def step(progress: float = 0.0) -> Step:
    return Step(Ranks(Accelerator(cpu=True)), progress, 0.0)


def images(count: int, side: int = 64) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


class Given(nn.Module):
    """Stands for the network: it gives the maps it was made with."""

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


def test_the_tiles_are_seen_without_each_other_and_their_maps_lie_where_they_were_cut() -> None:
    torch.manual_seed(0)
    network, images = Network(3, SMALL).eval(), samples(2)
    whole, merged = network(images, (2, 2))
    normalized = network.backbone.normalize(images)
    tags = torch.ones(2, 3)
    assert torch.allclose(whole, network.maps(normalized, tags), atol=1e-6)
    for y in (0, 1):
        for x in (0, 1):
            part = normalized[..., 32 * y : 32 * y + 32, 32 * x : 32 * x + 32]
            alone = network.maps(part, tags)
            assert torch.allclose(
                merged[..., 2 * y : 2 * y + 2, 2 * x : 2 * x + 2], alone, atol=1e-6
            )
    assert not torch.allclose(whole, merged, atol=1e-3)


@pytest.mark.parametrize("grid", GRIDS[:4])
def test_a_network_that_sees_single_pixels_has_nothing_to_reconstruct(
    grid: tuple[int, int],
) -> None:
    network = Network(4, SMALL)
    network.backbone = Pointwise(network.backbone.channels[-1])  # type: ignore[assignment]
    with torch.no_grad():
        network.head.weight.copy_(torch.randint(-2, 3, network.head.weight.shape))
    whole, merged = network(images(2, 48), grid)
    assert torch.equal(whole, merged)
    for reduction in REDUCTIONS:
        assert reconstruction_loss(whole, merged, torch.ones(2, 4), reduction) == 0


def test_the_mean_of_the_merged_map_is_the_mean_of_the_tiles_means() -> None:
    network, images = Network(3, SMALL).eval(), samples(2)
    _, merged = network(images, (2, 2))
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
def test_the_loss_is_the_sum_of_its_terms_by_hand(progress: float) -> None:
    torch.manual_seed(0)
    whole, merged = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    targets = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    terms = objective(material(), (2, 2), 4.0, 0.5, "present")(
        Given(whole, merged), (images(2), targets), step(progress)
    )
    by_hand = []
    for maps in (whole, merged):
        logits = maps.mean((2, 3))
        by_hand.append(
            -(targets * logits.sigmoid().log() + (1 - targets) * (-logits).sigmoid().log()).mean()
        )
    gap = (whole - merged).abs()
    re = ((gap[0, 0].mean() + gap[0, 2].mean()) / 2 + gap[1, 1].mean()) / 2
    assert terms["cls"].item() == pytest.approx(by_hand[0].item(), rel=1e-5)
    assert terms["p_cls"].item() == pytest.approx(by_hand[1].item(), rel=1e-5)
    assert terms["re"].item() == pytest.approx(re.item(), rel=1e-5)
    total = by_hand[0] + by_hand[1] + min(8 * progress, 4) * re
    assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-5)


def test_with_weight_0_the_classification_of_whole_images_is_bitwise_the_plain_classifier() -> None:
    torch.manual_seed(0)
    plain = Plain(3, SMALL).eval()
    network = Network(3, SMALL).eval()
    network.load_state_dict(plain.state_dict())
    images, targets = samples(2), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    terms = objective(material(), (2, 2), 0.0, 0.5, "present")(
        network, (images, targets), step(0.9)
    )
    alone = F.multilabel_soft_margin_loss(plain(images), targets)
    assert torch.equal(terms["cls"], alone)
    assert torch.equal(terms["loss"], terms["cls"] + terms["p_cls"])
    terms["cls"].backward()
    alone.backward()
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    tags = torch.ones(2, 3)
    normalized = plain.backbone.normalize(images)
    assert torch.equal(network.maps(normalized, tags), plain.maps(normalized, tags))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_absent_classes_get_no_gradient_and_both_sides_of_the_present_ones_do(
    reduction: Reduction,
) -> None:
    whole, merged = (torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(2))
    targets = torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    reconstruction_loss(whole, merged, targets, reduction).backward()
    for maps in (whole, merged):
        assert maps.grad is not None
        assert (maps.grad.abs().sum((2, 3)) > 0).tolist() == [[True, False, True], [False] * 3]
    assert torch.equal(whole.grad, -merged.grad)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradient_of_the_reconstruction_loss(reduction: Reduction) -> None:
    torch.manual_seed(0)
    whole, merged = (
        torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    targets = torch.tensor([[1.0, 0, 1], [0, 1, 0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda a, b: reconstruction_loss(a, b, targets, reduction), (whole, merged)
    )


def test_a_mean_over_all_classes_makes_a_image_of_one_in_twenty_weigh_a_twentieth() -> None:
    """The published reduction; `present` weighs every image the same."""
    whole, merged = torch.zeros(1, 20, 4, 4), torch.ones(1, 20, 4, 4)
    one, all_of_them = torch.eye(20)[:1], torch.ones(1, 20)
    assert reconstruction_loss(whole, merged, one, "all").item() == pytest.approx(1 / 20)
    assert reconstruction_loss(whole, merged, all_of_them, "all").item() == pytest.approx(1)
    assert reconstruction_loss(whole, merged, one, "present").item() == pytest.approx(1)
    assert reconstruction_loss(whole, merged, all_of_them, "present").item() == pytest.approx(1)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_loss_of_a_batch_is_the_mean_of_its_images_losses(reduction: Reduction) -> None:
    """Images of three classes, one, and none: nothing depends on batch-mates."""
    torch.manual_seed(0)
    whole, merged = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    targets = torch.tensor([[1.0, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]])
    losses = objective(material(), (2, 2), 4.0, 0.0, reduction)

    def terms(chosen: slice) -> dict[str, Tensor]:
        given = Given(whole[chosen], merged[chosen])
        return dict(losses(given, (images(1), targets[chosen]), step()))

    single = [terms(slice(n, n + 1)) for n in range(3)]
    for name, value in terms(slice(3)).items():
        assert value.item() == pytest.approx(sum(s[name].item() for s in single) / 3, rel=1e-5)
    assert single[2]["re"] == 0


@pytest.mark.defect("puzzlecam-5")
@pytest.mark.parametrize(
    ("crop", "grid", "working"),
    [(250, (2, 2), 256), (256, (3, 1), 240), (20, (2, 2), 32), (64, (2, 3), 96)],
)
def test_odd_crop_sizes_are_refused_with_one_that_works(
    crop: int, grid: tuple[int, int], working: int
) -> None:
    """The published code drops or mixes up what does not divide."""
    with pytest.raises(
        GridError, match=rf"classifier\.crop, classifier\.puzzlecam\.grid.* such as {working}$"
    ) as error:
        objective(material(crop), grid, 4.0, 0.5, "present")
    assert isinstance(error.value, UserError)
    objective(material(working), grid, 4.0, 0.5, "present")


@pytest.mark.defect("puzzlecam-6")
@pytest.mark.parametrize("classes", [1, 2, 20, 254])
@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_classes_and_images(classes: int, count: int) -> None:
    """The published merge takes the batch size from the command line, so that the last batch must
    be dropped.
    """
    network = Network(classes, SMALL).eval()
    whole, merged = network(images(count), (2, 2))
    assert whole.shape == merged.shape == (count, classes, 4, 4)
    targets = (torch.rand(count, classes) < 0.5).float()
    terms = objective(material(), (2, 2), 4.0, 0.5, "present")(
        network, (images(count), targets), step(0.5)
    )
    assert all(torch.isfinite(value) for value in terms.values())


@pytest.mark.parametrize("tags", [[0.0, 0, 0], [1.0, 1, 1]])
def test_a_step_in_bfloat16_is_finite_and_reaches_all_that_learns(tags: list[float]) -> None:
    network = Network(3, SMALL).train()
    network.backbone.freeze(2)
    fix_batch_norm(network)

    def halved(*inputs: object) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            return network(*inputs)

    losses = objective(material(), (2, 2), 4.0, 0.0, "present")
    terms = losses(halved, (images(2), torch.tensor([tags, tags])), step())  # type: ignore[arg-type]
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in terms.values())
    terms["loss"].backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    assert all(
        gradient is not None and gradient.isfinite().all() for gradient in gradients.values()
    )
    assert {name.split(".")[2] for name in gradients if "backbone" in name} == {
        "layer2",
        "layer3",
        "layer4",
    }
    assert network.new_parameters() == [network.head.weight]


def test_learning_steps_lower_the_loss_and_both_classifications() -> None:
    torch.manual_seed(0)
    network = Network(2, SMALL).train()
    fix_batch_norm(network)
    batch = (images(4), torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0]]))
    losses = objective(material(), (2, 2), 4.0, 0.0, "present")
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    course = []
    for _ in range(12):
        terms = losses(network, batch, step())
        course.append({name: value.item() for name, value in terms.items()})
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    assert all(course[-1][name] < course[0][name] for name in ("loss", "cls", "p_cls"))


def test_samples_are_tagged_crops() -> None:
    assert isinstance(samples(material()), TaggedCrops)
