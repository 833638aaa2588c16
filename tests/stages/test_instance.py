"""Stage instance: its weights file alone tells `weakmask predict` all it needs."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.classifiers.cam import Cam
from pipeline.core.artifacts import Writer
from pipeline.core.weights import load_weights, save_weights
from pipeline.data.masks import read_instances, read_semantic
from pipeline.errors import UserError
from pipeline.nets.backbones import Backbone
from pipeline.nets.deeplab import SemanticNet
from pipeline.predict import final_header, trained_sides
from pipeline.readers.build import build
from stages.cli.main import main
from stages.instance import instance, start_from
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
}


def test_the_weights_tell_what_the_model_was_trained_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    index = build("scenes", Path(), Path("data/dataset"), images=2, val=0.0)
    with Writer(Path("data/labels.h5"), "labels", index.classes) as writer:
        for name in index:
            ids, classes = read_instances(index, name)
            scores = np.ones(len(classes), np.float32)
            semantic = read_semantic(index, name)
            writer.write(
                name, {"semantic": semantic, "instances": ids, "classes": classes, "scores": scores}
            )
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
