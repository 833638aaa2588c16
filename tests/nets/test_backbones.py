"""Backbones: the stride and widths they promise, where weights come from, what freezing and fixing
leave alone.
"""

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.nets.backbones import (
    PACKAGED,
    Backbone,
    BackboneError,
    create_backbone,
    fix_batch_norm,
    freeze_batch_norm,
    normalization,
    packaged_weights,
    pad_to_multiple,
)

SHARED = Path(
    os.environ.get("WEAKMASK_SHARED", Path(__file__).resolve().parents[2] / ".." / "shared")
).resolve()
FAMILIES = ("resnet18", "tf_efficientnet_lite0", "convnext_atto")
SMALL = "test_resnet"


@pytest.mark.parametrize(
    ("name", "stride"),
    [*itertools.product((*FAMILIES, "resnest14d"), (8, 16)), ("vgg11", 16), ("wrn38d", 16)],
)
def test_maps_have_the_promised_widths_and_strides(name: str, stride: int) -> None:
    backbone = Backbone(name, output_stride=stride).eval()
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert backbone.stride == stride
    assert backbone.reductions == sorted(backbone.reductions)
    expected = [
        (1, c, 64 // r, 96 // r)
        for c, r in zip(backbone.channels, backbone.reductions, strict=True)
    ]
    assert [tuple(m.shape) for m in maps] == expected
    if name == "vgg11":  # ends with the rectified maps before its last pooling
        assert maps[-1].min() == 0
        assert all(int(part.split("_")[1]) <= 19 for part, _ in backbone.body.named_children())


def test_stride_that_a_network_lacks_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"'vgg11' gives no features at output stride 8: only"):
        Backbone("vgg11", output_stride=8)


@pytest.mark.parametrize("dilated", [True, False])
def test_resnest_pools_where_its_stride_was_removed(dilated: bool) -> None:
    body: Any = Backbone("resnest26d", output_stride=16, dilated=dilated).body
    first, second = body.layer4
    assert [first.avd_last.stride, body.layer3[0].avd_last.stride] == [1, 2]
    assert second.avd_last is None
    assert isinstance(first.downsample[0], nn.Identity)
    dilations = [block.conv2.conv.dilation for block in (first, second)]
    assert dilations == [(1, 1), (2, 2) if dilated else (1, 1)]


@pytest.mark.parametrize(("stride", "b5", "b6"), [(8, 2, 4), (16, 1, 2), (32, 1, 1)])
def test_wrn38d_dilates_what_it_does_not_stride(stride: int, b5: int, b6: int) -> None:
    with torch.device("meta"):
        body: Any = create_backbone("wrn38d", "none", dilated=True, output_stride=stride)
    assert body.feature_info.reduction() == [2, 4, 8, min(stride, 16), stride]
    last = {body.b5.conv_branch2b1: b5, body.b6.conv_branch2b1: b6, body.b7.conv_branch2b1: b6}
    assert all(conv.dilation == (dilation,) * 2 for conv, dilation in last.items())
    assert body.b5.conv_branch2a.dilation == (1, 1)


def test_published_frozen_part_of_wrn38d_is_its_first_stage() -> None:
    with torch.device("meta"):
        backbone = Backbone("wrn38d", output_stride=8, dilated=True)
    backbone.freeze(1)
    frozen = {n.split(".")[1] for n, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1a", "b2", "b2_1", "b2_2"}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dilated", [True, False])
def test_dilation_is_kept_or_removed_and_the_weights_fit_both(
    name: str, dilated: bool, tmp_path: Path
) -> None:
    whole = timm.create_model(name, pretrained=False).state_dict()
    save_file({key: value.contiguous() for key, value in whole.items()}, tmp_path / "w.safetensors")
    body = create_backbone(name, str(tmp_path / "w.safetensors"), dilated=dilated).eval()
    convolutions = [part for part in body.modules() if isinstance(part, nn.Conv2d)]
    widened = [c for c in convolutions if c.dilation != (1, 1)]
    assert bool(widened) == dilated
    assert {tuple(m.shape[2:]) for m in body(torch.zeros(1, 3, 32, 48))[-1:]} == {(2, 3)}
    expected = {value.sum().item() for value in whole.values()}
    assert {p.sum().item() for p in body.parameters()} <= expected


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_frozen_stages_are_those_before_the_feature_map(name: str, stages: int) -> None:
    """A gradient from feature map `stages` (1-based) reaches nothing; one from the next map reaches
    its own stage.
    """
    backbone = Backbone(name).eval()
    backbone.freeze(stages)
    maps = backbone(torch.randn(1, 3, 32, 32))
    assert not any(m.requires_grad for m in maps[:stages])
    assert all(m.requires_grad for m in maps[stages:])


def test_stages_of_a_pyramid_are_those_of_the_backbone() -> None:
    backbone = Backbone("resnet18", "none", (8, 16, 32))
    backbone.freeze(2)
    still = {n.split(".")[1] for n, p in backbone.named_parameters() if not p.requires_grad}
    assert still == {"conv1", "bn1", "layer1"}


def test_mean_color_becomes_zero_and_one_deviation_one() -> None:
    backbone = Backbone(SMALL)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1).expand(1, 3, 4, 5) for v in normalization(SMALL))
    assert backbone.normalize(mean * 255).abs().max() < 1e-5
    assert torch.allclose(backbone.normalize((mean + std) * 255), torch.ones(1, 3, 4, 5), atol=1e-5)


def test_fixed_batch_norm_keeps_its_statistics_and_learns_its_scale() -> None:
    backbone = Backbone(SMALL)
    norms = [part for part in backbone.modules() if isinstance(part, nn.BatchNorm2d)]
    before = [dict(norm.named_buffers()) for norm in norms]
    before = [{name: value.clone() for name, value in buffers.items()} for buffers in before]
    backbone.train()
    fix_batch_norm(backbone)
    backbone(torch.randn(2, 3, 32, 32) * 3 + 1)[-1].square().mean().backward()
    for norm, buffers in zip(norms, before, strict=True):
        assert set(buffers) == {"running_mean", "running_var", "num_batches_tracked"}
        assert all(torch.equal(norm.get_buffer(name), value) for name, value in buffers.items())
        assert norm.weight.grad is not None
    backbone.train()
    backbone(torch.randn(2, 3, 32, 32) * 3 + 1)
    assert not torch.equal(norms[0].get_buffer("running_mean"), before[0]["running_mean"])
    freeze_batch_norm(backbone)
    frozen = {parameter for parameter in backbone.parameters() if not parameter.requires_grad}
    assert frozen == {parameter for norm in norms for parameter in norm.parameters()}


@pytest.mark.parametrize(
    ("name", "weights", "says"),
    [
        ("resnet18x", "none", r"backbone\.name.*'resnet18x'.*resnet18"),
        ("no-such-net", "none", r"backbone\.name.*'no-such-net'"),
        (SMALL, "missing.safetensors", r"backbone\.weights.*no such file: missing\.safetensors"),
        (SMALL, "package", rf"backbone\.weights.*_lite2, not of '{SMALL}'"),
        (
            f"{SMALL}.no_such",
            "none",
            rf"backbone\.name.*'{SMALL}\.no_such'; those of {SMALL}: {SMALL}",
        ),
        ("vit_tiny_patch16_224", "package", r"backbone\.(name|weights).*vit_tiny"),
    ],
)
def test_errors_name_the_parameter(name: str, weights: str, says: str) -> None:
    with pytest.raises(BackboneError, match=says):
        Backbone(name, weights)


@pytest.mark.parametrize("content", ["pickle", "noise", "cut off"])
def test_damaged_or_pickled_file_is_named(tmp_path: Path, content: str) -> None:
    path = Path(stored(tmp_path, {}))
    whole = path.read_bytes()
    if content == "pickle":
        torch.save(timm.create_model(SMALL).state_dict(), path)
    else:
        path.write_bytes(b"\0" * 40 if content == "noise" else whole[: len(whole) // 2])
    with pytest.raises(
        BackboneError, match=r"backbone\.weights.*weights\.safetensors: not a valid"
    ):
        Backbone(SMALL, str(path))


def stored(tmp_path: Path, change: dict[str, Tensor | None]) -> str:
    """A file with the tensors of SMALL; those in `change` replaced or, for None, left out."""
    state = timm.create_model(SMALL, pretrained=False).state_dict() | change
    path = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in state.items() if value is not None}, path)
    return str(path)


@pytest.mark.defect("irn-16")
@pytest.mark.parametrize("value", [None, torch.zeros(3, 3, 3, 3)], ids=["missing", "misshapen"])
def test_tensor_that_does_not_fit_is_named(tmp_path: Path, value: Tensor | None) -> None:
    weights = stored(tmp_path, {"layer1.0.conv1.weight": value})
    message = rf"(?s)backbone\.weights: {weights} does not fit {SMALL}.*layer1\.0\.conv1\.weight"
    with pytest.raises(BackboneError, match=message):
        Backbone(SMALL, weights)


def test_counters_of_batch_norm_may_be_missing(tmp_path: Path) -> None:
    """timm's own files leave them out."""
    state = timm.create_model(SMALL, pretrained=False).state_dict()
    counters: dict[str, Tensor | None] = dict.fromkeys(
        k for k in state if k.endswith("num_batches_tracked")
    )
    assert counters
    create_backbone(SMALL, stored(tmp_path, counters), dilated=False)


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_weights_recognize_dogs(name: str) -> None:
    pytest.importorskip(PACKAGED[name].replace("-", "_"), reason="extra `lite` is not installed")
    source = SHARED / "data/voc_animals"
    if not source.is_dir():
        pytest.skip(f"no {source} with photographs")
    rows = (source / "labels.csv").read_text().split()
    dogs = [row.removesuffix(",dog") for row in rows if row.endswith(",dog")][:9]
    network = timm.create_model(name)
    network.load_state_dict(packaged_weights(name))
    options = timm.data.resolve_data_config(model=network)
    transform: Any = timm.data.create_transform(**options)
    images = [Image.open(source / f"JPEGImages/{dog}.jpg").convert("RGB") for dog in dogs]
    with torch.inference_mode():
        found = network.eval()(torch.stack([transform(image) for image in images])).argmax(1)
    assert len(dogs) == 9
    assert ((found >= 151) & (found <= 268)).float().mean() > 0.7, "ImageNet's breeds of dogs"


def test_padding_is_at_the_right_and_bottom_and_minimal() -> None:
    padded = pad_to_multiple(torch.ones(1, 1, 17, 32), 16)
    assert padded.shape == (1, 1, 32, 32)
    assert padded[..., :17, :].min() == 1
    assert padded[..., 17:, :].abs().max() == 0
