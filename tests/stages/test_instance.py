"""Stage instance: its weights file alone tells `weakmask predict` all it needs."""

import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.classifiers.cam import Cam
from pipeline.core.artifacts import Writer
from pipeline.core.weights import load_weights, save_weights
from pipeline.data.index import Index
from pipeline.data.masks import read_instances, read_semantic
from pipeline.errors import UserError
from pipeline.nets.backbones import Backbone
from pipeline.nets.deeplab import SemanticNet
from pipeline.predict import final_header, trained_sides
from pipeline.readers.build import build
from stages.cli.main import main
from stages.instance import instance, start_from
from stages.semantic import semantic
from tests.support.runtimes import run_stage

SMALL = {
    "instance.method": "sparseinst",
    "instance.pretraining": "none",
    "instance.epochs": 1,
    "instance.batch": 2,
    "instance.crop": 64,
    "instance.resize": [64, 96],
    "instance.batch_norm": "frozen",
    "instance.backbone": {"name": "test_resnet", "weights": "none"},
    "instance.sparseinst.width": 16,
    "instance.sparseinst.queries": 6,
    "semantic.epochs": 1,
    "semantic.batch": 2,
    "semantic.crop": 64,
    "semantic.backbone": {"name": "test_resnet", "weights": "none"},
}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """Two images in the working directory with true labels and without hints."""
    monkeypatch.chdir(tmp_path)
    index = build("scenes", Path(), Path("data/dataset"), images=2, val=0.0)
    with Writer(Path("data/hints.h5"), "hints", index.classes):
        pass
    with Writer(Path("data/labels.h5"), "labels", index.classes) as writer:
        for name in index:
            ids, classes = read_instances(index, name)
            scores = np.ones(len(classes), np.float32)
            drawn = read_semantic(index, name)
            writer.write(
                name, {"semantic": drawn, "instances": ids, "classes": classes, "scores": scores}
            )
    return index


@pytest.mark.parametrize(("name", "stage"), [("semantic", semantic), ("instance", instance)])
def test_hints_of_persons_weigh_and_their_weight_alone_changes_nothing(
    index: Index, name: str, stage: click.Command
) -> None:
    def trained(weight: float) -> bytes:
        done = run_stage(stage, values={**SMALL, "hints.weight": weight})
        assert done.exit_code == 0, done.output
        return Path(f"data/{name}.safetensors").read_bytes()

    before = trained(1)
    assert trained(5) == before
    Path("data/hints.h5").unlink()
    with Writer(Path("data/hints.h5"), "hints", index.classes) as writer:
        image = min(index)
        pixels = read_semantic(index, image)
        pixels[:, : pixels.shape[1] // 2] = 255
        writer.write(
            image,
            {
                "pixels": pixels,
                "instances": np.zeros_like(pixels),
                "evidence": np.zeros((0, *pixels.shape)),
                "classes": np.zeros(0),
                "objects": np.zeros((0, 3)),
                "boxes": np.zeros((0, 7)),
                "gated": np.zeros(0),
            },
        )
    assert trained(1) == before
    assert trained(5) != before


def test_the_weights_tell_what_the_model_was_trained_at(index: Index) -> None:
    done = run_stage(instance, values=SMALL)
    assert done.exit_code == 0, done.output
    header = final_header(Path("data/instance.safetensors"))
    assert header["classes"] == list(index.classes)
    assert trained_sides(header) == (80, 160)
    tensors, _ = load_weights(Path("data/instance.safetensors"), "instance")
    biases = {
        name: value for name, value in tensors.items() if "backbone" in name and "bias" in name
    }
    assert biases
    assert not any(value.any() for value in biases.values()), "frozen at their initial 0"
    assert tensors["decoder.masks.project.bias"].any()
    arguments = ["predict", "data/instance.safetensors", "data/dataset/images", "--score", "0"]
    done = CliRunner().invoke(main, [*arguments, "-o", "out"])
    assert done.exit_code == 0, done.output
    assert len(json.loads(Path("out/instances.json").read_bytes())["images"]) == 2


@pytest.mark.parametrize("kind", ["classifier", "semantic"])
def test_the_backbone_starts_from_another_stage(tmp_path: Path, kind: str) -> None:
    name, path = "test_resnet", tmp_path / "weights.safetensors"
    trained = Cam(1, Backbone(name)) if kind == "classifier" else SemanticNet(2, name)
    save_weights(path, trained, kind, backbone=name, classes=["a"])
    backbone = Backbone(name, strides=(8, 16, 32))
    start_from(kind, backbone, path)
    theirs = {value.sum().item() for value in trained.state_dict().values()}
    assert all(value.sum().item() in theirs for value in backbone.body.state_dict().values())
    with pytest.raises(UserError, match=f"the backbone of stage {kind} is test_resnet, this model"):
        start_from(kind, Backbone("test_efficientnet"), path)
