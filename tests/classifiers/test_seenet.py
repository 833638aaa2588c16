"""SeeNet: the masks at their thresholds, what each branch sees and learns, and the defects of the
published code.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.classifiers.extraction import activation_maps
from pipeline.classifiers.seenet import (
    Fusion,
    SeeNet,
    SeeNetLoss,
    attention,
    background_mask,
    divide_by_maximum,
    new_head,
    ternary_mask,
)
from pipeline.nets.backbones import Backbone
from tests.classifiers.base import SMALL, ClassifierTester, random_images, step

ERASE, BACKGROUND = 0.7, 0.05


class TestSeeNet(ClassifierTester):
    method = "seenet"
    options = {"depth": 2, "width": 8, "fusion": "max"}


class TestSeeNetForShortTraining(ClassifierTester):
    method = "seenet"
    options = {"depth": 0, "fusion": "sum", "warmup": 1.0}


def new_network(classes: int = 3, depth: int = 2, fusion: Fusion = "max") -> SeeNet:
    torch.manual_seed(0)
    network = SeeNet(
        classes,
        Backbone(SMALL),
        depth=depth,
        width=8,
        erase=ERASE,
        background=BACKGROUND,
        fusion=fusion,
    )
    return network.eval()


class Untouched(nn.Module):
    """A backbone whose features are the images."""

    def normalize(self, images: Tensor) -> Tensor:
        return images

    def forward(self, normalized: Tensor) -> list[Tensor]:
        return [normalized]


def on_features(classes: int = 3, channels: int = 5, fusion: Fusion = "max") -> SeeNet:
    """A network that takes features [B,channels,h,w] instead of images."""
    network = new_network(classes, fusion=fusion)
    network.backbone = Untouched()  # type: ignore[assignment]
    network.head = new_head(channels, 2, 8, classes)
    network.head_erased = new_head(channels, 2, 8, classes)
    return network


class Recorder(nn.Module):
    """A head that records its inputs and returns them as its maps."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, features: Tensor) -> Tensor:
        self.seen.append(features)
        return features


def test_mask_erases_from_one_threshold_on_and_reverses_below_the_other() -> None:
    """Both boundaries: at `erase` the position goes, at `background` it stays."""
    below = torch.nextafter(torch.tensor([0.75, 0.25]), torch.tensor(0.0)).tolist()
    attended = torch.tensor([1.0, 0.75, below[0], 0.5, 0.25, below[1], 0.0]).view(1, 1, 1, 7)
    assert ternary_mask(attended, 0.75, 0.25).flatten().tolist() == [0, 0, 1, 1, 1, -1, -1]
    assert background_mask(attended, 0.5).flatten().tolist() == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.defect("seenet-1")
def test_one_head_sees_features_without_the_object_and_the_background_alone() -> None:
    """The cut of branch C is midway between the thresholds of branch B."""
    network = on_features(classes=5)
    recorder = Recorder()
    network.head, network.head_erased = nn.Sequential(), nn.Sequential(recorder)
    ramp = torch.linspace(0, 1, 81).view(1, 1, 9, 9).repeat(1, 5, 1, 1)
    network(ramp, torch.ones(1, 5))
    erased, background = recorder.seen
    assert torch.equal(erased, ramp * ternary_mask(ramp[:, :1], ERASE, BACKGROUND))
    assert torch.equal(background, ramp * (ramp < 0.375))


def test_attention_is_the_maximum_of_the_present_classes_stretched_maps() -> None:
    maps = torch.tensor([[[-1.0, 0, 2, 4]], [[1.0, 3, 2, 1]], [[9.0, 0, 0, 0]]]).view(1, 3, 1, 4)
    assert attention(maps, torch.tensor([[1.0, 1, 0]])).flatten().tolist() == [0, 1, 0.5, 1]
    assert attention(maps, torch.tensor([[0.0, 1, 0]])).flatten().tolist() == [0, 1, 0.5, 0]
    assert attention(maps, torch.tensor([[0.0, 0, 1]])).flatten().tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e30])
def test_thresholds_are_shares_of_the_maximum_at_any_scale(scale: float) -> None:
    torch.manual_seed(0)
    maps, tags = torch.rand(2, 3, 6, 6), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    attended = attention(maps * scale, tags)
    assert attended.amax((1, 2, 3)).tolist() == [1, 1]
    assert torch.allclose(attended, attention(maps, tags), atol=1e-5)


@pytest.mark.defect("seenet-4")
@pytest.mark.parametrize(
    ("maps", "tags"),
    [
        (torch.rand(1, 2, 4, 4), [0.0, 0]),
        (-torch.rand(1, 2, 4, 4), [1.0, 1]),
        (torch.ones(1, 2, 4, 4), [1.0, 0]),
    ],
    ids=["no tags", "no class anywhere above 0", "flat map"],
)
def test_without_attention_nothing_is_erased_reversed_or_background(
    maps: Tensor, tags: list[float]
) -> None:
    """The paper's formula alone would erase everything, since 0 >= 0.7 times 0."""
    attended = attention(maps, torch.tensor([tags]))
    assert not attended.any()
    assert (ternary_mask(attended, ERASE, BACKGROUND) == 1).all()
    assert not background_mask(attended, 0.375).any()


@pytest.mark.defect("seenet-2")
def test_gradient_of_the_features_is_the_mask_in_every_channel() -> None:
    """The published backward pass stops it in one channel of one image alone."""
    network = on_features()
    recorder = Recorder()
    network.head_erased, features = (
        nn.Sequential(recorder),
        torch.randn(3, 5, 6, 6, requires_grad=True),
    )
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 1]])
    network(features, tags)
    mask = ternary_mask(attention(network.head(features.detach()), tags), ERASE, BACKGROUND)
    (gradient,) = torch.autograd.grad(recorder.seen[0].sum(), features)
    assert (mask == 0).any()
    assert torch.equal(gradient, torch.where(mask < 0, -(features > 0).to(mask), mask))


def test_masks_are_constants_to_the_other_branches() -> None:
    network = new_network()
    initial, erased, background = network(random_images(2), torch.ones(2, 3))
    weights = list(network.head.parameters())
    for logits in (erased, background):
        gradients = torch.autograd.grad(logits.sum(), weights, allow_unused=True, retain_graph=True)
        assert all(gradient is None for gradient in gradients)
    assert all(gradient.any() for gradient in torch.autograd.grad(initial.sum(), weights))


@pytest.mark.parametrize("depth", [0, 2])
def test_detached_branches_learn_and_leave_the_features_alone(depth: int) -> None:
    network, images, tags = new_network(depth=depth), random_images(2), torch.ones(2, 3)
    backbone, head = list(network.backbone.parameters()), list(network.head_erased.parameters())
    free, detached = (network(images, tags, still) for still in (False, True))
    for branch in (0, 1, 2):
        assert torch.equal(free[branch], detached[branch])
        for logits, reached in ((free, True), (detached, branch == 0)):
            loss = logits[branch].square().sum()
            gradients = torch.autograd.grad(loss, backbone, allow_unused=True, retain_graph=True)
            assert any(g is not None and g.any() for g in gradients) == reached
    gradients = torch.autograd.grad(detached[1].square().sum(), head)
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    ("warmup", "progress", "detached"),
    [(0.0, 0.0, False), (0.5, 0.49, True), (0.5, 0.5, False), (1.0, 0.99, True)],
)
def test_branches_are_detached_in_the_warmup(
    warmup: float, progress: float, detached: bool
) -> None:
    calls = []

    class Watched(nn.Module):
        def forward(self, images: Tensor, tags: Tensor, still: bool) -> tuple[Tensor, ...]:
            calls.append(still)
            return (torch.zeros(2, 3),) * 3

    SeeNetLoss(warmup)(Watched(), (random_images(2), torch.ones(2, 3)), step(progress))
    assert calls == [detached]


@pytest.mark.defect("seenet-6")
def test_loss_is_the_sum_of_the_branches_and_background_has_no_class() -> None:
    torch.manual_seed(0)
    logits = [torch.randn(2, 3) for _ in range(3)]
    targets = torch.tensor([[1.0, 0, 1], [0, 1, 0]])

    class FixedLogits(nn.Module):
        def forward(self, images: Tensor, tags: Tensor, detached: bool) -> tuple[Tensor, ...]:
            assert torch.equal(tags, targets)
            return tuple(logits)

    terms = SeeNetLoss(0.0)(FixedLogits(), (random_images(2), targets), step())
    expected = [
        F.binary_cross_entropy_with_logits(value, target)
        for value, target in zip(logits, (targets, targets, torch.zeros(2, 3)), strict=True)
    ]
    assert list(terms) == ["loss", "initial", "erased", "background"]
    values, by_hand = ([v.item() for v in part] for part in (terms.values(), expected))
    assert values == pytest.approx([sum(by_hand), *by_hand], rel=1e-5)


def test_maps_are_the_maximum_of_both_branches_divided_by_their_maxima() -> None:
    network, tags = on_features(), torch.tensor([[1.0, 0, 1]])
    features = torch.rand(1, 5, 6, 6)
    initial = network.head(features)
    erased = network.head_erased(
        features * ternary_mask(attention(initial, tags), ERASE, BACKGROUND)
    )
    for c, value in enumerate(network.maps(features, tags)[0]):
        parts = [
            maps[0, c].relu() / max(maps[0, c].max().item(), 1e-12) for maps in (initial, erased)
        ]
        assert torch.allclose(value, torch.maximum(*parts), atol=1e-6)


def test_summed_maps_are_the_sum_of_both_branches_rectified_maps() -> None:
    network, tags = on_features(fusion="sum"), torch.tensor([[1.0, 0, 1]])
    features = torch.rand(1, 5, 6, 6)
    initial = network.head(features)
    mask = ternary_mask(attention(initial, tags), ERASE, BACKGROUND)
    expected = initial.relu() + network.head_erased(features * mask).relu()
    assert torch.equal(network.maps(features, tags), expected)


@pytest.mark.defect("seenet-5")
def test_maps_depend_on_their_own_tags_and_on_no_earlier_ones() -> None:
    """The published notebook never resets a label: from the second class on it erases the union."""
    network, features = on_features(), torch.rand(1, 5, 6, 6)
    first = network.maps(features, torch.tensor([[1.0, 0, 0]]))
    second = network.maps(features, torch.tensor([[0.0, 1, 0]]))
    assert not torch.equal(first, second)
    assert torch.equal(first, network.maps(features, torch.tensor([[1.0, 0, 0]])))


@pytest.mark.parametrize(("fusion", "merge"), [("sum", torch.add), ("max", torch.maximum)])
def test_flipped_image_is_merged_as_the_branches_are(
    fusion: Fusion, merge: Callable[[Tensor, Tensor], Tensor]
) -> None:
    network, normalized, tags = (
        new_network(fusion=fusion),
        torch.randn(1, 3, 64, 64),
        torch.ones(1, 3),
    )
    straight, flipped = (
        activation_maps(network, view, tags, [1.0], flip=False)
        for view in (normalized, normalized.flip(3))
    )
    both = activation_maps(network, normalized, tags, [1.0], flip=True)
    assert torch.allclose(both, merge(straight, flipped.flip(3)), atol=1e-4)
    assert fusion == "sum" or both.max() <= 1


def test_divided_maps_are_in_0_to_1_and_empty_ones_stay_empty() -> None:
    maps = torch.stack([torch.tensor([-1.0, 2, 4]), torch.tensor([-1.0, -2, 0])]).view(1, 2, 1, 3)
    assert divide_by_maximum(maps).flatten().tolist() == [0, 0.5, 1, 0, 0, 0]


def test_only_the_1x1_convolutions_learn_faster_than_the_backbone() -> None:
    for depth, inputs in ((2, 8), (0, new_network().backbone.channels[-1])):
        shapes = [tuple(p.shape) for p in new_network(depth=depth).new_parameters()]
        assert shapes == [(3, inputs, 1, 1)] * 2


@pytest.mark.parametrize(("channels", "width"), [(6, 6), (6, 4), (4, 6)])
def test_heads_begin_as_the_identity_and_no_channel_is_lost_or_dead(
    channels: int, width: int
) -> None:
    torch.manual_seed(0)
    layers, features = new_head(channels, 2, width, 3), torch.rand(2, channels, 5, 5)
    copied = layers[:-1](features)
    for o in range(width):
        sources = [
            i for i in range(channels) if i % min(channels, width) == o % min(channels, width)
        ]
        assert torch.allclose(copied[:, o], features[:, sources].mean(1), atol=1e-6)
    layers(features).square().sum().backward()
    gradient = layers[0].get_parameter("weight").grad
    assert gradient is not None
    assert gradient.flatten(1).any(1).all()
    assert gradient.transpose(0, 1).flatten(1).any(1).all()
