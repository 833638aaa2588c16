"""The final models out of their files: which files are taken, and at which size an instance model
looks.
"""

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.core.weights import WeightsError, save_weights
from pipeline.predict import final_header, instance_predictor, semantic_predictor, trained_sides

CPU = torch.device("cpu")


def saved(path: Path, kind: str, **header: object) -> Path:
    save_weights(path, nn.Linear(1, 1), kind, classes=["cat"], **header)
    return path


def test_headers_of_final_models_are_read(semantic_model: Path, instance_model: Path) -> None:
    assert final_header(semantic_model)["kind"] == "semantic"
    assert final_header(instance_model)["method"] == "sparseinst"


@pytest.mark.parametrize(
    ("kind", "header", "message"),
    [
        ("classifier", {}, "stage classifier, not a final model; pass semantic.safetensors"),
        ("irnet", {}, "stage irnet"),
        (
            "instance",
            {"method": "none"},
            "instance.method was none; set it to sparseinst or maskrcnn",
        ),
    ],
)
def test_other_weights_are_refused(
    tmp_path: Path, kind: str, header: dict[str, str], message: str
) -> None:
    path = saved(tmp_path / "x.safetensors", kind, **header)
    with pytest.raises(WeightsError, match=rf"x\.safetensors: .*{message}"):
        final_header(path)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no such file; pass the semantic\.safetensors"):
        final_header(tmp_path / "x.safetensors")
    (tmp_path / "x.pth").write_bytes(b"\x80\x04pickle")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        final_header(tmp_path / "x.pth")


def test_probabilities_and_instances_have_the_size_of_the_image(
    semantic_model: Path, instance_model: Path
) -> None:
    images = torch.randint(
        0, 256, (2, 3, 50, 71), generator=torch.Generator().manual_seed(0)
    ).byte()
    given = semantic_predictor(semantic_model, CPU, scales=[0.5, 1.0], flip=True)(images)
    assert given.shape == (2, 4, 50, 71)
    assert given.sum(1) == pytest.approx(1, abs=1e-5)
    found = instance_predictor(instance_model, CPU, score=0.0, sides=None)(images)
    assert [one.masks.shape[1:] for one in found] == [(50, 71)] * 2
    assert len(found[0].scores) > 0


def test_a_file_without_an_instance_model_finds_nothing(tmp_path: Path) -> None:
    find = instance_predictor(
        saved(tmp_path / "x.safetensors", "instance", method="none"), CPU, score=0.1, sides=None
    )
    assert [one.masks.shape for one in find([torch.zeros(3, 4, 5), torch.zeros(3, 6, 7)])] == [
        (0, 4, 5),
        (0, 6, 7),
    ]


def test_sides_are_the_middle_of_those_trained_at(instance_model: Path) -> None:
    assert trained_sides(final_header(instance_model)) == (64, 128)
    assert trained_sides({"kind": "instance"}) is None
