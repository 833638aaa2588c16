"""Stage features, and the stages that have nothing to do because of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.core.artifacts import Reader
from pipeline.core.weights import load_weights
from pipeline.data.index import Index
from pipeline.nets.backbones import Backbone, pad_to_multiple
from stages.features import features
from stages.fields import fields
from stages.irnet import irnet
from tests.support.runtimes import run_stage

NETWORKS = {"test_resnet": 16, "test_vit": 8}


@pytest.mark.parametrize(
    "values", [{"classifier.method": "frozen"}, {"walk.affinity": "features"}], ids=str
)
@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_those_of_the_backbone(
    workspace: Path, name: str, values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    chosen = {"classifier.backbone": {"name": name, "weights": "weights.safetensors"}}
    network = Backbone(name, output_stride=NETWORKS[name]).eval()
    save(network)
    done = run_stage(features, values=chosen | values | {"classifier.stride": network.stride})
    assert done.exit_code == 0, done.output
    index, reader = Index.load(Path("data/dataset")), Reader("data/features.h5", "features")
    assert reader.names == index.select("train")
    for image, record in reader.items():
        normalized = network.normalize(torch.from_numpy(index.image(image)).permute(2, 0, 1)[None])
        with torch.inference_mode():
            expected = network(pad_to_multiple(normalized, network.stride))[-1][0].numpy()
        assert record["stride"].tolist() == [network.stride]
        assert record["features"].dtype == np.float16
        assert np.allclose(record["features"], expected, rtol=1e-3, atol=1e-3)
    assert "MB per image" in caplog.text


def save(network: Backbone) -> None:
    """Write a backbone's weights as timm names them."""
    state = network.body.state_dict()
    named = {k.removeprefix("model."): v.contiguous() for k, v in state.items()}
    save_file(named, "weights.safetensors")


def test_nothing_is_stored_that_nobody_reads(workspace: Path) -> None:
    assert run_stage(features, values={"classifier.method": "cam"}).exit_code == 0
    assert len(Reader("data/features.h5", "features")) == 0


def test_irnet_and_fields_pass_when_the_walk_takes_features(workspace: Path) -> None:
    Path("data/curves").mkdir()
    for stage in (irnet, fields):
        assert run_stage(stage, values={"walk.affinity": "features"}).exit_code == 0
    assert load_weights(Path("data/irnet.safetensors"), "irnet")[0] == {}
    assert len(Reader("data/fields.h5", "fields")) == 0
