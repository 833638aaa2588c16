"""`weakmask import`: published weights become files that the stages load, and DVC goes on from them
without training.
"""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from pipeline.classifiers import load_classifier
from pipeline.core.weights import load_network, load_weights
from pipeline.data.index import ImageEntry, Index
from pipeline.instances import rebuild
from pipeline.irnet.network import IRNet
from pipeline.nets.backbones import Backbone
from stages import classifier, instance, irnet
from stages._command import read_parameters
from stages.cli.main import main
from tests.support.repository import QUICK, commit, copy_code, run, set_parameters

CLASSES = ("cat", "dog", "cow")
CPU = torch.device("cpu")


@pytest.fixture
def project(folder: Path) -> Path:
    """A working directory with a data set of CLASSES and parameters of small networks."""
    backbones = {f"{s}.backbone.name": "test_resnet" for s in ("classifier", "irnet", "instance")}
    weights = {name.replace("name", "weights"): "none" for name in backbones}
    published = {"width": 16, "queries": 6, "normalize_features": False, "semantic": False}
    model = {f"instance.sparseinst.{name}": value for name, value in published.items()}
    set_parameters(folder, {**backbones, **weights, **model})
    image = ImageEntry("a", "a.png", 8, 8, "train", (0,), None, None, "")
    Index(CLASSES, [image], folder, folder, {}).save(folder / "data/dataset")
    return folder


def import_file(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["import", *map(str, arguments)])


def as_published(network: nn.Module, names: dict[str, str]) -> dict[str, Tensor]:
    """The tensors of a network of ours under the names of others, given the beginnings of both."""
    state = {}
    for name, tensor in network.state_dict().items():
        for ours, theirs in names.items():
            if name.startswith(ours):
                name = theirs + name.removeprefix(ours)
                break
        state[name] = tensor
    return state


IRN = {"backbone.body.": "resnet50.", "head.": "classifier."}
IRN_FIELDS = {
    "backbone.body.": "resnet50.",
    "boundary.fuse.": "fc_edge6.",
    "displacement.merge.": "fc_dp6.",
    "displacement.fuse.": "fc_dp7.",
    "mean_shift": "mean_shift.running_mean",
    **{f"boundary.taps.{n}.": f"fc_edge{n + 1}." for n in range(5)},
    **{f"displacement.taps.{n}.": f"fc_dp{n + 1}." for n in range(5)},
}
SPARSEINST = {
    "encoder.laterals.": "encoder.fpn_laterals.",
    "encoder.pooling.branches.1.": "encoder.ppm.stages.1.1.",
    "decoder.instances.merge.0.": "decoder.inst_branch.fc.",
    **{f"backbone.body.layer{n}.": f"backbone.res{n + 1}." for n in range(1, 5)},
}


@pytest.mark.parametrize(
    ("source", "stage", "names"),
    [
        ("irn-cam", "classifier", IRN),
        ("irn", "irnet", IRN_FIELDS),
        ("sparseinst", "instance", SPARSEINST),
    ],
)
def test_stages_load_what_was_imported(
    project: Path, source: str, stage: str, names: dict[str, str]
) -> None:
    parameters = read_parameters(project / "params.yaml")
    torch.manual_seed(1)
    network: Any = {
        "classifier": lambda: classifier.new_network(parameters.classifier, CLASSES)[0],
        "irnet": lambda: irnet.new_network(parameters.irnet)[0],
        "instance": lambda: instance.new_network(parameters.instance, CLASSES)[0],
    }[stage]()
    torch.save(as_published(network, names), project / "x.pth")
    target = project / "data" / f"{stage}.safetensors"
    result = import_file("x.pth", "--from", source, "-o", target.relative_to(project))
    assert result.exit_code == 0, result.output
    digest = hashlib.sha256((project / "x.pth").read_bytes()).hexdigest()
    assert f"x.pth: SHA-256 {digest}" in result.output
    assert f"dvc commit --force {stage}" in result.output
    assert (project / f"data/curves/{stage}.csv").read_text() == "step,loss\n"
    assert load_weights(target, stage)[1]["published"] == [source, digest]
    build: Any = {
        "classifier": load_classifier,
        "irnet": lambda header: IRNet(header["backbone"]),
        "instance": rebuild,
    }[stage]
    loaded = load_network(target, stage, build, CPU).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())


def test_backbone_is_loaded_by_its_parameter(project: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    torch.save(state, project / "x.pth")
    result = import_file("x.pth", "--from", "torchvision", "-o", "new/x.safetensors")
    assert result.exit_code == 0, result.output
    own = Backbone("test_resnet", "new/x.safetensors").body.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in own.items())
    assert not (project / "data/curves").exists()


@pytest.mark.parametrize(
    ("setting", "source", "says"),
    [
        ({}, "irn-cam", "-o new.safetensors: exists; add --force"),
        ({}, "s2c", "x.pth: does not fit section classifier of params.yaml, cam on test_resnet"),
        ({"classifier.backbone.name": "resnet18"}, "irn-cam", "backbone.body.layer4.1.conv2"),
        ({"classifier.backbone.name": "resnet18"}, "torchvision", "x.pth does not fit resnet18"),
    ],
)
def test_what_does_not_fit_is_not_written(
    project: Path, setting: dict[str, str], source: str, says: str
) -> None:
    network = classifier.new_network(read_parameters(Path("params.yaml")).classifier, CLASSES)[0]
    set_parameters(project, setting)
    torch.save(as_published(network, IRN), "x.pth")
    target = project / "new.safetensors"
    if "exists" in says:
        target.touch()
    result = import_file("x.pth", "--from", source, "-o", target.name)
    assert result.exit_code == 1
    assert says in result.output
    assert not target.exists() or target.stat().st_size == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_dvc_goes_on_without_training(tmp_path: Path) -> None:
    """The next stage takes the imported weights, and DVC holds them for the classifier's result."""
    copy_code(tmp_path)
    set_parameters(tmp_path, QUICK)
    commit(tmp_path)
    run(tmp_path, "dvc", "repro", "guidance", "features")
    classes = Index.load(tmp_path / "data/dataset").classes
    section = read_parameters(tmp_path / "params.yaml").classifier
    torch.manual_seed(1)
    network = classifier.new_network(section, classes)[0]
    torch.save(as_published(network, IRN), tmp_path / "x.pth")
    target = "data/classifier.safetensors"
    run(tmp_path, "weakmask", "import", "x.pth", "--from", "irn-cam", "-o", target)
    run(tmp_path, "dvc", "commit", "--force", "classifier")
    text = run(tmp_path, "dvc", "repro", "cams").stdout
    assert "Stage 'classifier' didn't change" in text
    assert "Running stage 'cams'" in text
    head = load_weights(tmp_path / target, "classifier")[0]["head.weight"]
    assert torch.equal(head, network.get_parameter("head.weight"))
    set_parameters(tmp_path, {"classifier.crop": 96})
    assert "classifier.crop" in run(tmp_path, "dvc", "status", "classifier", check=False).stdout
