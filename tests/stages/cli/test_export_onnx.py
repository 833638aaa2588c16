"""`weakmask export-onnx`: files that onnxruntime runs at any size, and what is not written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from pipeline.core.weights import save_weights
from pipeline.instances.maskrcnn import MaskRCNN
from pipeline.onnx import check_agreement, load_model, scene_images
from stages.cli.main import main

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
ROOT = Path(__file__).resolve().parents[3]
SIZES = ((1, 96, 128), (2, 45, 71), (3, 5, 9), (1, 33, 160))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["export-onnx", *map(str, arguments)])


@pytest.fixture(scope="module")
def semantic(semantic_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file of the semantic model and what was printed."""
    path = tmp_path_factory.mktemp("onnx") / "new" / "semantic.onnx"
    result = run(semantic_model, "-o", path)
    assert result.exit_code == 0, result.output
    return path, result.output


@pytest.fixture(scope="module")
def instance(instance_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file of the instance model, of another opset, and what was printed."""
    path = tmp_path_factory.mktemp("onnx") / "instance.onnx"
    result = run(instance_model, "-o", path, "--opset", "20")
    assert result.exit_code == 0, result.output
    return path, result.output


@pytest.mark.slow
def test_semantic_model_runs_at_any_size(semantic: tuple[Path, str], semantic_model: Path) -> None:
    path, printed = semantic
    rows = check_agreement(path.read_bytes(), load_model(semantic_model), SIZES)
    assert [size for size, _ in rows] == list(SIZES)
    session = onnxruntime.InferenceSession(path)
    labels, probabilities = session.run(None, {"images": scene_images(2, 37, 50)})
    assert (labels.dtype, labels.shape) == (np.uint8, (2, 37, 50))
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (2, 4, 37, 50))
    np.testing.assert_array_equal(probabilities.argmax(1), labels)
    assert "1 x 500x375" in printed
    assert "onnxruntime" in printed


@pytest.mark.slow
def test_instance_model_runs_at_any_size(instance: tuple[Path, str], instance_model: Path) -> None:
    path, _ = instance
    rows = check_agreement(path.read_bytes(), load_model(instance_model), SIZES)
    assert all(iou > 0.999 for _, iou in rows)
    session = onnxruntime.InferenceSession(path)
    given = {"images": scene_images(2, 37, 50)}
    numbers, classes, scores, masks = session.run(None, given | {"score": np.array(0, np.float32)})
    assert masks.shape == (len(scores), 37, 50)
    assert masks.dtype == bool
    assert set(numbers.tolist()) == {0, 1}
    assert classes.max() < 3
    nothing = session.run(None, given | {"score": np.array(1, np.float32)})
    assert [part.shape for part in nothing] == [(0,), (0,), (0,), (0, 37, 50)]


@pytest.mark.slow
def test_metadata_describes_inputs_and_outputs(
    semantic: tuple[Path, str], instance: tuple[Path, str]
) -> None:
    models = [onnx.load(path) for path, _ in (semantic, instance)]
    said = [{entry.key: entry.value for entry in model.metadata_props} for model in models]
    assert json.loads(said[0]["class names"]) == ["background", "cat", "dog, or wolf", "日本"]
    assert json.loads(said[1]["class names"]) == ["cat", "dog, or wolf", "日本"]
    assert said[1]["images it was trained for"] == "shorter side 64 pixels, longer side 128 at most"
    assert "[batch, 3, height, width] uint8, RGB" in said[0]["input images"]
    assert "multiples of 32" in said[1]["input images"]
    assert [model.opset_import[0].version for model in models] == [18, 20]
    for model, entries in zip(models, said, strict=True):
        for side, values in (("input", model.graph.input), ("output", model.graph.output)):
            for value in values:
                dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
                assert entries[f"{side} {value.name}"].startswith(f"[{', '.join(map(str, dims))}] ")
    for path, _ in (semantic, instance):
        for trace in (b"site-packages", b"pkg.torch", b"Traceback", str(ROOT).encode()):
            assert trace not in path.read_bytes(), "nothing of the source, nor of where it lay"


@pytest.mark.slow
def test_file_that_disagrees_is_not_written(
    tmp_path: Path,
    semantic: tuple[Path, str],
    semantic_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as one whose labels are one too high."""
    model = onnx.load(semantic[0])
    (cast,) = (node for node in model.graph.node if "labels" in node.output)
    cast.output[0] = "before"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1, np.uint8), "one"))
    model.graph.node.append(onnx.helper.make_node("Add", ["before", "one"], ["labels"]))
    content = model.SerializeToString()
    monkeypatch.setattr("pipeline.onnx.to_onnx", lambda graph, opset: content)
    result = run(semantic_model, "-o", tmp_path / "x.onnx")
    assert result.exit_code == 1
    assert "onnxruntime and PyTorch agree only to IoU" in result.output
    assert not list(tmp_path.iterdir())


def test_wrong_arguments_are_refused(
    tmp_path: Path, semantic_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "instance.safetensors", tmp_path / "x.onnx"
    header = {
        "method": "maskrcnn",
        "backbone": "test_resnet",
        "classes": ["cat"],
        "options": {"channels": 8},
    }
    save_weights(path, MaskRCNN(1, "test_resnet", channels=8), "instance", **header)
    (tmp_path / "there.onnx").write_text("old")
    for arguments, message in (
        ((path, "-o", out), "maskrcnn cannot be exported"),
        ((tmp_path / "x.safetensors", "-o", out), "x.safetensors: no such file"),
        ((semantic_model, "-o", out, "--opset", "9"), "--opset: 9 is not supported; use 18 to"),
        ((semantic_model, "-o", out, "--opset", "99"), "--opset: 99 is not supported"),
        ((semantic_model, "-o", tmp_path), "is a folder; name a file such as"),
        ((semantic_model, "-o", tmp_path / "there.onnx"), "exists; add --force"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert message in result.output
    assert not out.exists()
    assert (tmp_path / "there.onnx").read_text() == "old"
    monkeypatch.setattr("pipeline.onnx.PACKAGES", ("onnx", "no_such_package"))
    result = run(semantic_model, "-o", out)
    assert (
        "needs no_such_package; `pip install onnx no_such_package` (extra `onnx`)" in result.output
    )


def test_network_that_torch_cannot_export_is_named(
    semantic_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sorting(torch.nn.Module):
        """Does what no graph can hold: something that depends on a value in Python."""

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            if images.float().mean().item() > 3:
                raise ValueError
            return images[:, 0], images[:, 0]

    graph = load_model(semantic_model)
    object.__setattr__(graph, "module", Sorting().eval())
    monkeypatch.setattr("pipeline.onnx.load_model", lambda path: graph)
    result = run(semantic_model, "-o", "x.onnx")
    assert result.exit_code == 1
    assert "backbone test_resnet cannot be exported by torch" in result.output
    assert "Traceback" not in result.output
