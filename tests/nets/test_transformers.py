"""Transformers and ConvNeXt as backbones: maps of any image size, where they lie, and every network
of the pipeline on them. All weights are random.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from pipeline.classifiers import new_classifier
from pipeline.classifiers.extraction import activation_maps
from pipeline.instances import INSTANCE_MODELS
from pipeline.irnet.network import IRNet, fields_of
from pipeline.nets.backbones import Backbone, BackboneError
from pipeline.nets.deeplab import SemanticNet, probabilities

PLAIN = ("vit_small_patch14_dinov2", "vit_small_patch16_dinov3")
SWIN = "swin_tiny_patch4_window7_224"
ALL = (*PLAIN, SWIN, "convnext_atto")
SMALL = "test_vit"


@cache
def backbone(name: str, stride: int = 16) -> Backbone:
    torch.manual_seed(0)
    return Backbone(name, output_stride=stride).eval().requires_grad_(False)


@pytest.mark.parametrize("name", [*PLAIN, SWIN])
@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("size", [(64, 96), (45, 70), (17, 5)])
def test_maps_of_any_size_have_a_cell_per_stride(
    name: str, stride: int, size: tuple[int, int]
) -> None:
    network = backbone(name, stride)
    maps = network(torch.randn(2, 3, *size))
    assert network.reductions == [4, 8, stride, stride]
    cells = [tuple(-(-side // r) for side in size) for r in network.reductions]
    widths = zip(network.channels, cells, strict=True)
    assert [tuple(m.shape) for m in maps] == [(2, c, *grid) for c, grid in widths]


@pytest.mark.parametrize("name", [*PLAIN, SMALL])
def test_last_map_is_what_timm_returns_of_the_image_whose_patches_are_the_cells(name: str) -> None:
    network, image = backbone(name), torch.randn(1, 3, 64, 96)
    model: Any = network.body.model
    patch = model.patch_embed.patch_size[0]
    resized = F.interpolate(image, (4 * patch, 6 * patch), mode="bilinear", antialias=True)
    tokens = model.forward_features(resized if patch != 16 else image)[:, model.num_prefix_tokens :]
    expected = tokens.transpose(1, 2).unflatten(2, (4, 6))
    assert torch.allclose(network(image)[-1], expected, atol=1e-4)


def test_coarse_maps_of_a_hierarchical_network_are_interpolated() -> None:
    network, image = backbone(SWIN), torch.randn(1, 3, 64, 96)
    native = Backbone(SWIN, strides=(4, 8, 16, 32)).eval()
    native.load_state_dict(network.state_dict())
    *fine, last = native(image)
    *same, finer = network(image)
    assert all(torch.equal(a, b) for a, b in zip(fine, same, strict=True))
    assert torch.allclose(F.interpolate(last, (4, 6), mode="bilinear"), finer, atol=1e-5)


def test_pyramid_levels_are_one_map_at_several_strides() -> None:
    levels = Backbone(SMALL, strides=(8, 16, 32)).eval()(torch.randn(1, 3, 70, 90))
    assert [tuple(level.shape[2:]) for level in levels] == [(9, 12), (5, 6), (3, 3)]


def test_stride_that_a_hierarchical_network_lacks_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"no features at strides \[2, 4\]: it has strides \[4"):
        Backbone(SWIN, strides=(2, 4))


@pytest.mark.parametrize("name", ALL)
def test_flipped_image_has_flipped_class_maps(name: str) -> None:
    network = new_classifier("cam", ("a", "b"), backbone(name), {})[0].eval()
    image, tags = torch.randn(1, 3, 49, 72), torch.ones(1, 2)
    straight, flipped = (
        activation_maps(network, one, tags, (1.0, 0.5), flip=True) for one in (image, image.flip(3))
    )
    assert straight.shape == (1, 2, 13, 18)
    assert torch.allclose(straight, flipped.flip(3), atol=1e-4 * straight.max().item())
    alone = activation_maps(network, image, tags, (1.0, 0.5), flip=False)
    assert not torch.allclose(straight, 2 * alone, atol=0.1 * straight.max().item())


@pytest.mark.parametrize("name", ALL)
def test_batched_equals_single(name: str) -> None:
    network, images = backbone(name), torch.randn(3, 3, 48, 70)
    together = network(images)
    for n in range(3):
        for level, alone in zip(together, network(images[n : n + 1]), strict=True):
            assert torch.allclose(level[n : n + 1], alone, atol=1e-4)


@pytest.mark.parametrize("name", [PLAIN[1], SWIN])
def test_weights_of_a_file_with_timms_names(name: str, tmp_path: Path) -> None:
    whole = timm.create_model(name).state_dict()
    whole = {key: torch.randn_like(v) if v.is_floating_point() else v for key, v in whole.items()}
    save_file(whole, tmp_path / "w.safetensors")
    body = Backbone(name, str(tmp_path / "w.safetensors")).body
    own = {key.removeprefix("model."): value for key, value in body.state_dict().items()}
    assert all(torch.equal(value, whole[key]) for key, value in own.items())
    assert {key.split(".")[0] for key in set(whole) - set(own)} <= {"head"}


@pytest.mark.parametrize(("stages", "blocks"), [(1, 1), (2, 3), (4, 6)])
def test_frozen_stages_are_the_blocks_before_a_map(stages: int, blocks: int) -> None:
    network = Backbone(SMALL).train()
    network.freeze(stages)
    learning = {
        n.removeprefix("body.model.") for n, p in network.named_parameters() if p.requires_grad
    }
    first = {f"blocks.{n}" for n in range(blocks, 6)}
    assert {".".join(n.split(".")[:2]) for n in learning if n.startswith("blocks")} == first
    assert {n.split(".")[0] for n in learning} == ({"blocks", "norm"} if blocks < 6 else set())


@pytest.mark.parametrize("name", [SMALL, "test_convnext"])
def test_every_network_takes_it(name: str) -> None:
    height, width = 50, 71
    images = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    semantic = SemanticNet(3, name).eval()
    assert probabilities(semantic, images, (1.0,), flip=False).shape == (1, 3, height, width)
    irnet = IRNet(name).eval()
    boundary, field = fields_of(irnet, irnet.backbone.normalize(images), flip=True)
    assert (boundary.shape, field.shape) == ((1, 13, 18), (1, 2, 13, 18))
    shapes = {"sparseinst": {"width": 16, "queries": 5}, "maskrcnn": {"channels": 8}}
    for method, shape in shapes.items():
        (found,) = INSTANCE_MODELS[method](2, name, **shape).eval().predict(images, score=0.0)
        assert found.masks.shape[1:] == (height, width)
