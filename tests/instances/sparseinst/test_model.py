"""The whole SparseInst: strides of any backbone, normalization, padding, and what it learns."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.instances.sparseinst import SparseInst
from pipeline.instances.sparseinst.network import Outputs
from pipeline.nets.backbones import BackboneError, normalization
from tests.instances.base import SMALL, InstanceModelTester
from tests.support.sparseinst_cases import PUBLISHED

LOSS = PUBLISHED | {"semantic": 4.0}
SIZES: dict[str, Any] = {"width": 16, "queries": 8, "groups": 2}


class TestSparseInst(InstanceModelTester):
    method = "sparseinst"
    options = {
        **SIZES,
        "normalization": "sigmoid",
        "normalize_features": True,
        "semantic": True,
        "target_resize": "area",
        "weight_by_score": True,
        "loss": LOSS,
    }
    terms = {"classification", "dice", "mask", "objectness", "semantic"}

    def detecting(self) -> SparseInst:
        model: SparseInst = self.model().eval()
        for layer in (model.decoder.instances.activation, model.decoder.instances.kernels):
            nn.init.normal_(layer.weight, std=0.5)
        return model


@pytest.fixture(scope="module")
def network() -> SparseInst:
    torch.manual_seed(0)
    return SparseInst(3, SMALL, **SIZES).eval()


def images(batch: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    "name", ["resnet18", "tf_efficientnet_lite0", "convnext_atto", "pvt_v2_b0"]
)
def test_any_backbone_with_features_at_strides_8_16_and_32(name: str) -> None:
    network = SparseInst(2, name, **SIZES).eval()
    assert network.backbone.reductions == [8, 16, 32]
    with torch.no_grad():
        assert network(images(1, 64, 96)).masks.shape == (1, 8, 16, 24)


def test_backbone_without_the_strides_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"backbone\.name: 'xcit_nano_12_p16_224'"):
        SparseInst(2, "xcit_nano_12_p16_224", **SIZES)


def test_classes_of_cells_are_predicted_in_training_alone() -> None:
    network = SparseInst(3, SMALL, semantic=True, **SIZES)
    learning = network.train()(images(2, 64, 96))
    assert learning.semantic.shape == (2, 4, 8, 12)
    assert isinstance(network.eval()(images(2, 64, 96)), Outputs)
    assert SparseInst(3, SMALL, **SIZES).train()(images(2, 64, 96)).semantic is None


def test_padding_follows_normalization(network: SparseInst) -> None:
    prepared = network.prepare(images(1, 50, 70))
    assert prepared.shape == (1, 3, 64, 96)
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) * 255 for part in normalization(SMALL))
    assert torch.allclose(prepared[..., :50, :70], (images(1, 50, 70) - mean) / std)
    assert not prepared[..., 50:, :].any()
    assert not prepared[..., 70:].any()
