"""The final model: sizes, ignored pixels, probabilities, flips and scales, and aligned crops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.data.augmentation import RandomScale
from pipeline.nets.backbones import create_backbone, normalization
from pipeline.nets.deeplab import LabeledCrops, SemanticNet, probabilities, segmentation_loss
from tests.support.sources import painted
from tests.support.steps import FixedLogits, single_rank


@pytest.fixture(scope="module")
def network() -> SemanticNet:
    torch.manual_seed(0)
    network = SemanticNet(4, "test_resnet").eval()
    # else all probabilities are nearly equal and tests blind
    network.head[0].weight.data *= 300
    return network


def random_images(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
@pytest.mark.parametrize(("height", "width"), [(64, 80), (50, 71), (5, 9)])
def test_logits_have_the_size_of_the_image(name: str, height: int, width: int) -> None:
    assert SemanticNet(3, name).eval()(random_images(1, height, width)).shape == (
        1,
        3,
        height,
        width,
    )


def test_pretrained_weights_reach_the_backbone(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = create_backbone("resnet18", "none", dilated=True).state_dict()
    state = {key: torch.randn_like(v) if v.is_floating_point() else v for key, v in state.items()}
    save_file(state, tmp_path / "w.safetensors")
    body = SemanticNet(3, "resnet18", str(tmp_path / "w.safetensors")).backbone.body
    assert all(torch.equal(value, state[key]) for key, value in body.state_dict().items())


def test_new_parameters_are_all_but_the_backbones(network: SemanticNet) -> None:
    pretrained = {id(p) for p in network.backbone.parameters()}
    new = {id(p) for p in network.new_parameters()}
    assert not pretrained & new
    assert pretrained | new == {id(p) for p in network.parameters()}


def test_padding_adds_the_mean_color(network: SemanticNet) -> None:
    """An image of mean color gives the same logits with and without padding."""
    mean = torch.tensor(normalization("test_resnet")[0]).view(1, 3, 1, 1) * 255
    small, large = network(mean.expand(1, 3, 41, 50)), network(mean.expand(1, 3, 48, 64))
    assert torch.allclose(small, large[..., :41, :50], atol=1e-3)
    assert large.std() > 0.01


def test_loss_is_the_mean_over_labeled_pixels_alone() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1)).byte()
    labels[0, :3], labels[1, :, 2] = 255, 255
    network = FixedLogits(logits)
    loss = segmentation_loss(network, (torch.zeros(2, 3, 4, 5), labels), single_rank())["loss"]
    loss.backward()
    logp = logits.log_softmax(1)
    known = [(b, y, x) for b, y, x in np.ndindex(2, 4, 5) if labels[b, y, x] != 255]
    by_hand = -sum(float(logp[b, int(labels[b, y, x]), y, x]) for b, y, x in known) / len(known)
    assert float(loss.detach()) == pytest.approx(by_hand, rel=1e-5)
    gradient = network.logits.grad
    assert gradient is not None
    ignored = (labels == 255)[:, None].expand_as(gradient)
    assert not gradient[ignored].any()
    assert (gradient[~ignored] != 0).all()


def test_a_batch_of_ignored_pixels_costs_nothing() -> None:
    torch.manual_seed(0)
    network = SemanticNet(3, "test_resnet").train()
    labels = torch.full((2, 32, 32), 255, dtype=torch.uint8)
    loss = segmentation_loss(network, (random_images(2, 32, 32), labels), single_rank())["loss"]
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is None or not p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.75)])
@pytest.mark.parametrize("width", [64, 71])
def test_a_flipped_image_has_flipped_probabilities(
    network: SemanticNet, scales: tuple[float, ...], width: int
) -> None:
    image = random_images(1, 50, width)
    straight = probabilities(network, image, scales, flip=True)
    flipped = probabilities(network, image.flip(3), scales, flip=True)
    assert (straight - flipped.flip(3)).abs().max() < 1e-4
    assert (straight - probabilities(network, image, scales, flip=False)).abs().max() > 1e-3


def test_scales_are_averaged(network: SemanticNet) -> None:
    image = random_images(1, 48, 64)
    each = [probabilities(network, image, [scale], flip=False) for scale in (1.0, 0.5)]
    both = probabilities(network, image, (1.0, 0.5), flip=False)
    assert torch.allclose(both, (each[0] + each[1]) / 2, atol=1e-5)


def test_one_scale_is_the_softmax_of_the_logits(network: SemanticNet) -> None:
    image = random_images(1, 50, 71)
    with torch.no_grad():
        expected = network(image).softmax(1)
    assert torch.allclose(probabilities(network, image, (1.0,), flip=False), expected, atol=1e-5)
    assert expected.std() > 0.01


def test_batched_equals_single(network: SemanticNet) -> None:
    batch = random_images(3, 45, 62)
    together = probabilities(network, batch, (1.0, 0.5), flip=True)
    alone = torch.cat([probabilities(network, p[None], (1.0, 0.5), flip=True) for p in batch])
    assert torch.equal(together, alone)


def test_crops_and_their_labels_stay_together(tmp_path: Path) -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[10:40, 15:45] = 1
    table = np.array([[10, 40, 10], [220, 30, 40]], np.uint8)
    index = painted(tmp_path, table[labels], ("a",), (0,))
    resize = RandomScale(0.75, 1.5)
    crops = LabeledCrops(index, ["p"], resize, 64, (0.5,) * 3, lambda name: labels)
    assert len(crops) == 1
    for seed in range(10):
        torch.manual_seed(seed)
        image, mask = crops[0]
        assert (tuple(mask.shape), mask.dtype) == ((64, 64), torch.uint8)
        palette = torch.tensor([[10, 40, 10], [220, 30, 40], [128, 128, 128]])
        distance = (image.permute(1, 2, 0).long()[:, :, None] - palette).abs().sum(-1)
        nearest, clear = torch.tensor([0, 1, 255])[distance.argmin(-1)], distance.amin(-1) < 30
        assert clear.float().mean() > 0.7
        assert (nearest == mask)[clear].float().mean() > 0.99
