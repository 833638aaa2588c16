"""The whole network: strides of any backbone, normalization, padding, and where its weights come
from.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.core.weights import load_network, save_weights
from pipeline.instances.sparseinst.network import Network, Outputs
from pipeline.nets.backbones import PACKAGED, BackboneError, create_backbone, normalization

SMALL = "test_resnet"
OPTIONS = {"width": 16, "queries": 6, "groups": 2, "kernel": 8, "depth": 1}


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network(3, SMALL, **OPTIONS).eval()


def images(batch: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("name", ["resnet18", PACKAGED, "convnext_atto", "pvt_v2_b0"])
def test_any_backbone_with_features_at_strides_8_16_and_32(name: str) -> None:
    network = Network(2, name, **OPTIONS).eval()
    assert network.backbone.reductions == [8, 16, 32]
    with torch.no_grad():
        assert network(images(1, 64, 96)).masks.shape == (1, 6, 16, 24)


@pytest.mark.parametrize("name", [SMALL, "convnext_atto"])
def test_pretrained_weights_reach_the_backbone(name: str, tmp_path: Path) -> None:
    state = create_backbone(name, "none", dilated=True).state_dict()
    state = {key: torch.randn_like(v) if v.is_floating_point() else v for key, v in state.items()}
    save_file(state, tmp_path / "w.safetensors")
    body = Network(2, name, str(tmp_path / "w.safetensors"), **OPTIONS).backbone.body
    assert all(torch.equal(value, state[key]) for key, value in body.state_dict().items())


def test_a_backbone_without_the_strides_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"backbone\.name: 'test_vit'"):
        Network(2, "test_vit", **OPTIONS)


def test_new_parameters_are_all_but_the_backbone(network: Network) -> None:
    backbone = {id(p) for p in network.backbone.parameters()}
    new = {id(p) for p in network.new_parameters()}
    assert not backbone & new
    assert backbone | new == {id(p) for p in network.parameters()}


def test_classes_of_cells_are_learned_beside_in_training_alone() -> None:
    torch.manual_seed(0)
    network = Network(3, SMALL, semantic=True, **OPTIONS)
    assert {id(p) for p in network.semantic.parameters()} <= {
        id(p) for p in network.new_parameters()
    }
    learning = network.train()(images(2, 64, 96))
    assert learning.semantic.shape == (2, 4, 8, 12)
    assert isinstance(network.eval()(images(2, 64, 96)), Outputs)
    assert Network(3, SMALL, **OPTIONS).train()(images(2, 64, 96)).semantic is None


@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 71), (5, 9)])
def test_masks_span_the_padded_image(network: Network, height: int, width: int) -> None:
    logits, masks, objectness = network(images(2, height, width))
    assert logits.shape == (2, 6, 3)
    assert objectness.shape == (2, 6)
    assert masks.shape == (2, 6, -(-height // 32) * 8, -(-width // 32) * 8)
    assert all(part.isfinite().all() for part in (logits, masks, objectness))


def test_padding_follows_normalization(network: Network) -> None:
    prepared = network.prepare(images(1, 50, 70))
    assert prepared.shape == (1, 3, 64, 96)
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) * 255 for part in normalization(SMALL))
    assert torch.allclose(prepared[..., :50, :70], (images(1, 50, 70) - mean) / std)
    assert not prepared[..., 50:, :].any()
    assert not prepared[..., 70:].any()


def test_images_may_be_float(network: Network) -> None:
    for ours, theirs in zip(
        network(images(1, 32, 32)), network(images(1, 32, 32).float()), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_saved_and_restored_to_the_same_outputs(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "instance.safetensors"
    save_weights(path, network, "instance", classes=["a", "b", "c"], backbone=SMALL, head=OPTIONS)
    again = load_network(
        path,
        "instance",
        lambda header: Network(len(header["classes"]), header["backbone"], **header["head"]),
        torch.device("cpu"),
    )
    for ours, theirs in zip(again(images(1, 40, 50)), network(images(1, 40, 50)), strict=True):
        assert torch.equal(ours, theirs)


def test_all_parameters_learn() -> None:
    network = Network(3, SMALL, semantic=True, **OPTIONS).train()
    outputs, semantic = network(images(2, 32, 64))
    sum(part.square().sum() for part in (*outputs, semantic)).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
