"""SeeNet: the masks at their thresholds, what each branch sees and learns, and what of it the
published code got wrong.
"""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.classifiers.base import TaggedCrops, TrainingData
from pipeline.classifiers.extraction import activation_maps
from pipeline.classifiers.seenet.network import (
    Network,
    attention,
    background_mask,
    head,
    share,
    ternary_mask,
)
from pipeline.classifiers.seenet.training import objective, samples
from pipeline.core.trainer import Ranks, Step
from pipeline.data.index import Index
from pipeline.nets.backbones import fix_batch_norm

SMALL = "test_resnet"
MATERIAL = TrainingData(Index((), [], Path(), Path(), {}), [], (1, 1), 32, (0.5, 0.5, 0.5))
ERASE, BACKGROUND = 0.7, 0.05


@pytest.fixture
def step() -> Step:
    return Step(Ranks(Accelerator(cpu=True)), 0.0, 0.0)


def made(classes: int = 3, erase: float = ERASE, background: float = BACKGROUND) -> Network:
    torch.manual_seed(0)
    return Network(classes, SMALL, width=8, erase=erase, background=background).eval()


def images(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8)


class Untouched(nn.Module):
    """Stands for the backbone: its features are the images."""

    def normalize(self, images: Tensor) -> Tensor:
        return images

    def forward(self, normalized: Tensor) -> list[Tensor]:
        return [normalized]


def on_features(classes: int = 3, channels: int = 5) -> Network:
    """A network that takes features [B,channels,h,w] instead of images."""
    network = made(classes)
    network.backbone = Untouched()  # type: ignore[assignment]
    network.head = head(channels, 8, classes)
    network.head_erased = head(channels, 8, classes)
    network.head_background = head(channels, 8, classes)
    return network


class Seen(nn.Module):
    """A head that keeps what it is given and hands it on as its maps."""

    def forward(self, features: Tensor) -> Tensor:
        self.features = features
        return features


def test_the_mask_erases_from_its_threshold_on_and_reverses_below_the_other() -> None:
    """Both boundaries: at `erase` the position goes, at `background` it stays."""
    below = torch.nextafter(torch.tensor([0.75, 0.25]), torch.tensor(0.0)).tolist()
    attended = torch.tensor([1.0, 0.75, below[0], 0.5, 0.25, below[1], 0.0]).view(1, 1, 1, 7)
    assert ternary_mask(attended, 0.75, 0.25).flatten().tolist() == [0, 0, 1, 1, 1, -1, -1]
    assert background_mask(attended, 0.5).flatten().tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_the_cut_of_the_background_branch_lies_midway_between_the_thresholds() -> None:
    network = on_features(classes=5)
    network.head, network.head_background = nn.Identity(), Seen()
    ramp = torch.linspace(0, 1, 81).view(1, 1, 9, 9).repeat(1, 5, 1, 1)
    network(ramp, torch.ones(1, 5))
    assert torch.equal(network.head_background.features, ramp * (ramp < 0.375))


def test_the_attention_is_the_largest_of_the_present_classes_each_stretched_to_its_own_range() -> (
    None
):
    maps = torch.tensor([[[-1.0, 0, 2, 4]], [[1.0, 3, 2, 1]], [[9.0, 0, 0, 0]]]).view(1, 3, 1, 4)
    assert attention(maps, torch.tensor([[1.0, 1, 0]])).flatten().tolist() == [0, 1, 0.5, 1]
    assert attention(maps, torch.tensor([[0.0, 1, 0]])).flatten().tolist() == [0, 1, 0.5, 0]
    assert attention(maps, torch.tensor([[0.0, 0, 1]])).flatten().tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e30])
def test_the_thresholds_are_shares_of_the_maximum_whatever_the_maps_size(scale: float) -> None:
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
def test_without_attention_nothing_is_erased_reversed_or_called_background(
    maps: Tensor, tags: list[float]
) -> None:
    """The paper's formula alone would erase everything, since 0 >= 0.7 times 0."""
    attended = attention(maps, torch.tensor([tags]))
    assert not attended.any()
    assert (ternary_mask(attended, ERASE, BACKGROUND) == 1).all()
    assert not background_mask(attended, 0.375).any()


def test_thresholds_out_of_reach_let_branch_b_see_what_branch_a_sees() -> None:
    network = made(erase=1.01, background=0.0)
    network.head_erased.load_state_dict(network.head.state_dict())
    initial, erased, _ = network(images(2), torch.ones(2, 3))
    assert torch.equal(initial, erased)
    network.erase, network.background = ERASE, BACKGROUND
    initial, erased, _ = network(images(2), torch.ones(2, 3))
    assert not torch.allclose(initial, erased)


@pytest.mark.defect("seenet-1")
def test_the_sign_does_reverse() -> None:
    """In the published network it never does: its lower threshold is 0, and no rectified map is
    below.
    """
    network = on_features()
    network.head_erased, features = Seen(), torch.rand(2, 5, 6, 6) + 0.1
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    network(features, tags)
    mask = ternary_mask(attention(network.head(features), tags), ERASE, BACKGROUND)
    assert {-1.0, 0.0, 1.0} == set(mask.unique().tolist())
    assert torch.equal(network.head_erased.features, features * mask)
    assert torch.equal(network.head_erased.features < 0, (mask < 0).expand(-1, 5, -1, -1))


@pytest.mark.defect("seenet-2")
def test_the_gradient_of_the_features_is_the_mask_where_they_are_above_0_in_every_channel() -> None:
    """The published backward pass stops it in one channel of one image alone."""
    network = on_features()
    network.head_erased, features = Seen(), torch.randn(3, 5, 6, 6, requires_grad=True)
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 1]])
    network(features, tags)
    mask = ternary_mask(attention(network.head(features.detach().relu()), tags), ERASE, BACKGROUND)
    (gradient,) = torch.autograd.grad(network.head_erased.features.sum(), features)
    assert (mask == 0).any()
    assert torch.equal(gradient, mask * (features > 0))


def test_masks_are_constants_no_other_branch_teaches_the_head_they_come_from() -> None:
    network = made()
    initial, erased, background = network(images(2), torch.ones(2, 3))
    weights = list(network.head.parameters())
    for logits in (erased, background):
        gradients = torch.autograd.grad(logits.sum(), weights, allow_unused=True, retain_graph=True)
        assert all(gradient is None for gradient in gradients)
    assert all(gradient.any() for gradient in torch.autograd.grad(initial.sum(), weights))


def test_gradients_of_all_branches() -> None:
    network, tags = on_features().double(), torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    features = torch.randn(2, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: network(x, tags), (features,))


def test_features_are_rectified_also_behind_a_linear_last_layer() -> None:
    """A backbone that ends in batch normalization gives negative features, whose reversed sign
    would mean nothing.
    """
    network = on_features()
    assert torch.equal(
        network.features(torch.tensor([[-1.0, 2.0]])[..., None, None]).flatten(),
        torch.tensor([0.0, 2]),
    )


@pytest.mark.defect("seenet-6")
def test_the_loss_is_the_sum_of_the_branches_and_the_background_has_no_classes(step: Step) -> None:
    torch.manual_seed(0)
    logits = [torch.randn(2, 3) for _ in range(3)]
    targets = torch.tensor([[1.0, 0, 1], [0, 1, 0]])

    class Given(nn.Module):
        def forward(self, images: Tensor, tags: Tensor) -> tuple[Tensor, ...]:
            assert tags is targets
            return tuple(logits)

    terms = objective(MATERIAL)(Given(), (samples(2), targets), step)
    expected = [
        F.binary_cross_entropy_with_logits(value, target)
        for value, target in zip(logits, (targets, targets, torch.zeros(2, 3)), strict=True)
    ]
    assert list(terms) == ["loss", "initial", "erased", "background"]
    values = [value.item() for value in terms.values()]
    assert values == pytest.approx(
        [sum(expected).item(), *(value.item() for value in expected)], rel=1e-5
    )


@pytest.mark.defect("seenet-3")
def test_every_image_has_its_own_mask_so_the_loss_of_a_batch_is_the_mean_of_its_images(
    step: Step,
) -> None:
    """The published layer takes the first sample's mask for all."""
    network, images = made(), samples(3)
    targets = torch.tensor([[1.0, 1, 0], [0, 0, 1], [0, 0, 0]])
    together = objective(MATERIAL)(network, (images, targets), step)
    alone = [
        objective(MATERIAL)(network, (images[n : n + 1], targets[n : n + 1]), step)
        for n in range(3)
    ]
    for name, value in together.items():
        assert value.item() == pytest.approx(
            sum(terms[name].item() for terms in alone) / 3, rel=1e-4
        )


def test_maps_of_a_batch_are_those_of_its_images() -> None:
    network, tags = made(), torch.tensor([[1.0, 1, 0], [0, 0, 1], [0, 0, 0]])
    normalized = network.backbone.normalize(images(3))
    together = network.maps(normalized, tags)
    for n in range(3):
        alone = network.maps(normalized[n : n + 1], tags[n : n + 1])
        assert torch.allclose(together[n : n + 1], alone, atol=1e-4)


def test_maps_are_the_larger_of_both_branches_as_shares_of_their_maxima() -> None:
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


@pytest.mark.defect("seenet-5")
def test_maps_depend_on_the_tags_given_and_on_no_earlier_ones() -> None:
    """The published notebook never takes back a label: from the second class on, it erases the
    union.
    """
    network, normalized = made(), torch.randn(1, 3, 64, 64)
    first = network.maps(normalized, torch.tensor([[1.0, 0, 0]]))
    second = network.maps(normalized, torch.tensor([[0.0, 1, 0]]))
    assert not torch.equal(first, second)
    assert torch.equal(first, network.maps(normalized, torch.tensor([[1.0, 0, 0]])))


def test_the_flip_image_adds_by_its_maximum() -> None:
    network, normalized, tags = made(), torch.randn(1, 3, 64, 64), torch.ones(1, 3)
    straight, turned = (
        activation_maps(network, view, tags, [1.0], flip=False)
        for view in (normalized, normalized.flip(3))
    )
    both = activation_maps(network, normalized, tags, [1.0], flip=True)
    assert torch.allclose(both, torch.maximum(straight, turned.flip(3)), atol=1e-4)
    assert both.max() <= 1


def test_shares_lie_between_0_and_1_and_an_empty_map_stays_empty() -> None:
    maps = torch.stack([torch.tensor([-1.0, 2, 4]), torch.tensor([-1.0, -2, 0])]).view(1, 2, 1, 3)
    assert share(maps).flatten().tolist() == [0, 0.5, 1, 0, 0, 0]


@pytest.mark.defect("seenet-4")
@pytest.mark.parametrize("classes", [1, 2, 20, 254])
def test_any_number_of_classes(classes: int, step: Step) -> None:
    """Twenty are wired into the published layer."""
    network, tags = made(classes), (torch.rand(2, classes) < 0.5).float()
    assert network.maps(torch.randn(2, 3, 32, 48), tags).shape == (2, classes, 2, 3)
    terms = objective(MATERIAL)(network, (images(2), tags), step)
    assert all(value.isfinite() for value in terms.values())


@pytest.mark.parametrize("tags", [[0.0, 0, 0], [1.0, 1, 1]])
def test_a_step_in_bfloat16_is_finite_and_reaches_all_that_learns(
    tags: list[float], step: Step
) -> None:
    network = made().train()
    network.backbone.freeze(2)
    fix_batch_norm(network)

    def halved(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            return network(*inputs)

    terms = objective(MATERIAL)(halved, (images(2), torch.tensor([tags, tags])), step)  # type: ignore[arg-type]
    assert all(value.dtype == torch.float32 and value.isfinite() for value in terms.values())
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


def test_only_the_1x1_convolutions_learn_faster_than_the_backbone() -> None:
    network = made()
    assert [tuple(parameter.shape) for parameter in network.new_parameters()] == [(3, 8, 1, 1)] * 3


def test_a_network_comes_back_from_its_options_and_weights() -> None:
    network = made()
    options = {"width": 8, "erase": ERASE, "background": BACKGROUND}
    assert tuple(options) == Network.OPTIONS
    again = Network(3, SMALL, **options)  # type: ignore[arg-type]
    again.load_state_dict(network.state_dict())
    normalized, tags = torch.randn(1, 3, 64, 64), torch.ones(1, 3)
    assert torch.equal(again.eval().maps(normalized, tags), network.maps(normalized, tags))


@pytest.mark.parametrize(("channels", "width"), [(6, 6), (6, 4), (4, 6)])
def test_heads_begin_as_the_plain_classifiers_and_no_channel_is_lost_or_dead(
    channels: int, width: int
) -> None:
    torch.manual_seed(0)
    layers, features = head(channels, width, 3), torch.rand(2, channels, 5, 5)
    copied = layers[:-1](features)
    for o in range(width):
        sources = [
            i for i in range(channels) if i % min(channels, width) == o % min(channels, width)
        ]
        assert torch.allclose(copied[:, o], features[:, sources].mean(1), atol=1e-6)
    layers(features).square().sum().backward()
    assert all(row.any() for row in layers[0].weight.grad)
    assert all(column.any() for column in layers[0].weight.grad.transpose(0, 1))


def test_learning_steps_lower_the_loss(step: Step) -> None:
    network = made(2).train()
    fix_batch_norm(network)
    batch = (images(4), torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0]]))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        loss = objective(MATERIAL)(network, batch, step)["loss"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]


def test_samples_are_tagged_crops() -> None:
    assert isinstance(samples(MATERIAL), TaggedCrops)
