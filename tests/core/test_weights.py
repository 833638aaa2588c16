"""Weights files: round trip, equal bytes, and refusal of what is not ours."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.core.weights import (
    WeightsError,
    load_weights,
    read_header,
    restore,
    save_weights,
)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1, bias=False))


@pytest.mark.defect("irn-24")
def test_tensors_and_header_come_back(tmp_path: Path) -> None:
    path, original = tmp_path / "new" / "x.safetensors", network()
    save_weights(path, original, "classifier", classes=("Hündin", "cat"), backbone="tiny")
    assert [file.name for file in path.parent.iterdir()] == ["x.safetensors"]
    tensors, header = load_weights(path, "classifier")
    assert (header["classes"], header["backbone"]) == (["Hündin", "cat"], "tiny")
    assert read_header(path) == header
    other = network(1)
    restore(other, tensors, path)
    for name, tensor in original.state_dict().items():
        assert tensor.dtype == other.state_dict()[name].dtype
        assert torch.equal(tensor, other.state_dict()[name])


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    save_weights(tmp_path / "a", network(), "classifier", one=1, two=2)
    save_weights(
        tmp_path / "b", network().to(memory_format=torch.channels_last), "classifier", two=2, one=1
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_missing_foreign_and_other_kinds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(WeightsError, match=r"x\.safetensors: no such file; `dvc repro x`"):
        load_weights(path, "irnet")
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="not written by this pipeline"):
        load_weights(path, "irnet")
    save_weights(path, network(), "classifier")
    with pytest.raises(WeightsError, match="holds classifier version 1, expected irnet version 1"):
        load_weights(path, "irnet")
    monkeypatch.setattr("pipeline.core.weights.VERSION", 2)
    with pytest.raises(WeightsError, match="version 1, expected classifier version 2"):
        load_weights(path, "classifier")


@pytest.mark.defect("irn-16")
@pytest.mark.parametrize("name", ["1.running_mean", "extra"])
def test_restoring_is_strict(name: str) -> None:
    tensors = network().state_dict()
    if tensors.pop(name, None) is None:
        tensors[name] = torch.zeros(1)
    with pytest.raises(WeightsError, match=rf"x\.safetensors: (.|\n)*{name}"):
        restore(network(), tensors, Path("x.safetensors"))
