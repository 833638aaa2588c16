"""The authors' checkpoints: names, what is left out, and refusal of what is none."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.core.weights import WeightsError
from pipeline.instances.sparseinst import SparseInst
from pipeline.instances.sparseinst.upstream import load_upstream, translate

RESNET = {
    "backbone.stem.conv1.weight": "backbone.body.conv1.weight",
    "backbone.stem.conv1.norm.running_mean": "backbone.body.bn1.running_mean",
    "backbone.res2.0.shortcut.weight": "backbone.body.layer1.0.downsample.0.weight",
    "backbone.res2.0.shortcut.norm.bias": "backbone.body.layer1.0.downsample.1.bias",
    "backbone.res4.5.conv2.weight": "backbone.body.layer3.5.conv2.weight",
    "backbone.res5.2.conv3.norm.running_var": "backbone.body.layer4.2.bn3.running_var",
}
HEAD = {
    "encoder.laterals.": "encoder.fpn_laterals.",
    "encoder.outputs.": "encoder.fpn_outputs.",
    "encoder.pooling.merge.": "encoder.ppm.bottleneck.",
    "encoder.fuse.": "encoder.fusion.",
    "decoder.instances.convs.": "decoder.inst_branch.inst_convs.",
    "decoder.instances.activation.": "decoder.inst_branch.iam_conv.",
    "decoder.instances.merge.0.": "decoder.inst_branch.fc.",
    "decoder.instances.classes.": "decoder.inst_branch.cls_score.",
    "decoder.instances.kernels.": "decoder.inst_branch.mask_kernel.",
    "decoder.instances.objectness.": "decoder.inst_branch.objectness.",
    "decoder.masks.convs.": "decoder.mask_branch.mask_convs.",
    "decoder.masks.project.": "decoder.mask_branch.projection.",
    "backbone.body.conv1.": "backbone.stem.conv1.",
    "backbone.body.bn1.": "backbone.stem.conv1.norm.",
    ".downsample.0.": ".shortcut.",
    ".downsample.1.": ".shortcut.norm.",
    **{f".bn{number}.": f".conv{number}.norm." for number in (1, 2, 3)},
    **{f"backbone.body.layer{number}.": f"backbone.res{number + 1}." for number in (1, 2, 3, 4)},
    **{
        f"encoder.pooling.branches.{number}.": f"encoder.ppm.stages.{number}.1."
        for number in range(4)
    },
}
"""Beginnings and middles of our names, and theirs."""


def network(seed: int = 0, **options: Any) -> SparseInst:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"width": 16, "queries": 6, "groups": 2}
    return SparseInst(3, "resnet18", **sizes | options).eval()


def theirs(net: SparseInst) -> dict[str, Tensor]:
    """The network's state as the authors' code would name it."""
    state = {"pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}
    for name, tensor in net.state_dict().items():
        for ours, published in HEAD.items():
            name = name.replace(ours, published)
        if not name.endswith("num_batches_tracked"):
            state[name] = tensor
    if net.decoder.instances.normalization == "softmax":
        state["decoder.inst_branch.softmax_bias"] = torch.ones(1)
        state["decoder.inst_branch.iam_conv.bias"] = torch.ones(12)
    return state


def stored(path: Path, content: object) -> tuple[Path, str]:
    torch.save(content, path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("options", "wrapped"),
    [({}, True), ({"groups": 1}, False), ({"normalization": "softmax"}, True)],
)
def test_checkpoint_gives_the_same_outputs(
    tmp_path: Path, options: dict[str, Any], wrapped: bool
) -> None:
    original, other = network(**options), network(1, **options)
    state = theirs(original)
    content = {"model": state, "iteration": 7} if wrapped else state
    load_upstream(other, *stored(tmp_path / "w.pth", content))
    image = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8)
    for one, two in zip(original(image), other(image), strict=True):
        assert torch.equal(one, two)


def test_names_of_the_backbone() -> None:
    assert list(translate(dict.fromkeys(RESNET, torch.zeros(1)))) == list(RESNET.values())


def test_checkpoint_of_another_size_is_refused(tmp_path: Path) -> None:
    path, digest = stored(tmp_path / "w.pth", theirs(network(width=32)))
    with pytest.raises(WeightsError, match=r"w\.pth(.|\n)*decoder\.instances\.kernels\.weight"):
        load_upstream(network(), path, digest)


def test_another_digest_is_refused(tmp_path: Path) -> None:
    path, digest = stored(tmp_path / "w.pth", theirs(network()))
    with pytest.raises(WeightsError, match=rf"w\.pth: its SHA-256 is {digest}, expected 00"):
        load_upstream(network(), path, "0" * 64)
    with pytest.raises(WeightsError, match=r"none\.pth: no such file"):
        load_upstream(network(), tmp_path / "none.pth", digest)


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


@pytest.mark.parametrize("content", [Code(), [torch.zeros(2)]], ids=["code", "list"])
def test_other_content_is_refused_and_not_executed(
    tmp_path: Path, content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WeightsError, match=r"w\.pth: (holds|contains)"):
        load_upstream(network(), *stored(tmp_path / "w.pth", content))
    assert capsys.readouterr().out == ""
