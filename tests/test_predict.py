"""Final models out of their files, and their results as files: masks that readers understand, and
images that cannot be read next to others that can.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.core.device import Runtime
from pipeline.core.weights import WeightsError, save_weights
from pipeline.errors import UserError
from pipeline.export.predictions import (
    IMAGES_PER_WORKER,
    OutputPaths,
    PredictionSummary,
    check_output_folder,
    labelmap,
    plan,
    predict_instances,
    predict_labels,
)
from pipeline.export.voc import color_map
from pipeline.instances.base import Detections
from pipeline.predict import SemanticPredictor, final_header, trained_sides
from pipeline.readers.inputs import find_images
from pipeline.tiles import Tiling
from tests.support.runtimes import runtime

CLASSES = ("cat", "dog, or wolf", "日本")
NO_CRF = {"iterations": 0}


def saved(path: Path, kind: str, **header: object) -> Path:
    save_weights(path, nn.Linear(1, 1), kind, classes=["cat"], **header)
    return path


@pytest.mark.parametrize(
    ("kind", "header", "message"),
    [
        ("classifier", {}, "stage classifier, not a final model; pass semantic.safetensors"),
        ("instance", {"method": "none"}, "instance.method was none; set it to sparseinst"),
    ],
)
def test_other_weights_are_refused(
    tmp_path: Path, kind: str, header: dict[str, str], message: str
) -> None:
    path = saved(tmp_path / "x.safetensors", kind, **header)
    with pytest.raises(WeightsError, match=rf"x\.safetensors: .*{message}"):
        final_header(path)


def test_sides_are_the_middle_of_the_trained_range(instance_model: Path) -> None:
    assert trained_sides(final_header(instance_model)) == (64, 128)
    assert trained_sides({"kind": "instance"}) is None


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of two sizes whose red channel is a label 0..3 times 60, and one that is none."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a.png", "b.png", "sub/a.png", "turned.jpg")):
        values = np.zeros((20, 30 if number % 2 else 24, 3), np.uint8)
        values[4:12, 3:17, 0], values[14:, 10:, 0] = 60 * (1 + number % 3), 180
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6 if path.suffix == ".jpg" else 1
        Image.fromarray(values).save(path, exif=exif)
    (tmp_path / "photos/bad.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    return tmp_path / "photos"


def output(photos: Path, *, overlays: bool = True) -> OutputPaths:
    return OutputPaths(photos.parent / "out", CLASSES, overlays, find_images([str(photos)]).files)


def predict_whole(
    predictor: SemanticPredictor, output: OutputPaths, runtime: Runtime
) -> PredictionSummary:
    """Write the label maps of whole images."""
    tiling = Tiling(64, 48)
    parts = plan(output.files, lambda size: size, tiling)
    return predict_labels(predictor, output, parts, tiling, NO_CRF, runtime)


def red(images: Tensor) -> np.ndarray:
    """Probabilities whose argmax is a pixel's red channel / 60."""
    labels = (images[:, 0].long() + 30) // 60
    return torch.nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2).float().numpy()


def two_halves(images: Sequence[Tensor] | Tensor) -> list[Detections]:
    """The left half as a dog and, behind it, the whole image as a cat; nothing in images of 24
    columns.
    """
    found = []
    for image in images:
        masks = torch.ones(2, *image.shape[1:], dtype=torch.bool)
        masks[0, :, image.shape[2] // 2 :] = False
        count = 0 if image.shape[2] == 24 else 2
        classes, scores = torch.tensor([1, 0]), torch.tensor([0.9, 0.25])
        found.append(Detections(masks[:count], classes[:count], scores[:count]))
    return found


@pytest.mark.parametrize("batch", [1, 3])
def test_label_maps_are_palette_images_of_the_upright_image(photos: Path, batch: int) -> None:
    summary = predict_whole(red, output(photos), runtime(photos, batch=batch))
    assert list(summary.failures) == ["bad.jpg"]
    for name, number in (("a", 0), ("b", 1), ("sub/a", 2)):
        with Image.open(f"out/masks/{name}.png") as mask:
            assert mask.mode == "P"
            assert (mask.getpalette() or [])[:12] == color_map()[:4].ravel().tolist()
            values = np.asarray(mask)
        assert values.shape == (20, 30 if number % 2 else 24)
        assert (values[4:12, 3:17] == 1 + number).all()
        assert (values[14:, 10:] == 3).all()
    with Image.open("out/masks/turned.png") as mask:
        assert mask.size == (20, 30), "upright by EXIF"
    with Image.open("out/overlays/turned.jpg") as drawn:
        assert drawn.width == 20
    assert not list(Path("out").rglob("*.part"))


def test_failing_network_fails_for_one_image(photos: Path) -> None:
    def narrow(images: Tensor) -> np.ndarray:
        if images.shape[3] == 30:
            raise ValueError("too wide")
        return red(images)

    without = output(photos, overlays=False)
    summary = predict_whole(narrow, without, runtime(photos, batch=2))
    assert summary.failures["b.png"].endswith("photos/b.png: ValueError: too wide")
    assert len([*Path("out/masks").rglob("*.png")]) == 3
    assert not Path("out/overlays").exists()


@pytest.mark.slow
def test_processes_write_the_same_files(photos: Path) -> None:
    for number in range(IMAGES_PER_WORKER):
        image = Image.fromarray(np.full((8, 9, 3), 60 * (number % 4), np.uint8))
        image.save(photos / f"more{number}.png")
    predict_whole(red, output(photos), runtime(photos))
    alone = {path: path.read_bytes() for path in Path("out").rglob("*.*")}
    predict_whole(red, output(photos), runtime(photos, workers=2))
    assert alone == {path: path.read_bytes() for path in Path("out").rglob("*.*")}
    assert len(alone) == 1 + 2 * (4 + IMAGES_PER_WORKER)


def test_interrupted_run_leaves_complete_files(photos: Path) -> None:
    def interrupted(images: Sequence[Tensor] | Tensor) -> list[Detections]:
        if images[0].shape[2] == 30:
            raise KeyboardInterrupt
        return two_halves(images)

    with pytest.raises(KeyboardInterrupt):
        predict_instances(interrupted, output(photos), runtime(photos, batch=1))
    files = [path for path in Path("out").iterdir() if path.is_file()]
    assert not files, "no json without all images, and no part of one"
    summary = predict_instances(two_halves, output(photos), runtime(photos))
    assert (len(summary.failures), summary.instances) == (1, 4)
    content = json.loads(Path("out/instances.json").read_bytes())
    assert [row["name"] for row in content["categories"]] == list(CLASSES)
    assert len(content["images"]) == 4


def test_labelmap_lists_values_and_colors() -> None:
    rows = list(csv.DictReader(labelmap(CLASSES).decode().splitlines()))
    assert [row["name"] for row in rows] == ["background", *CLASSES]
    assert [row["value"] for row in rows] == ["0", "1", "2", "3"]
    assert [int(rows[2][color]) for color in ("red", "green", "blue")] == color_map()[2].tolist()


@pytest.mark.parametrize(
    ("folder", "arguments", "message"),
    [
        ("photos", ["photos"], "-o photos: lies in photos, where the images are"),
        ("photos/out", ["photos"], "lies in photos"),
        ("photos", ["photos/overlays/x.png"], "x.png: is in -o photos, which is written to"),
    ],
)
def test_results_are_never_written_next_to_the_images(
    photos: Path, folder: str, arguments: list[str], message: str
) -> None:
    (photos / "overlays").mkdir()
    (photos / "overlays/x.png").touch()
    with pytest.raises(UserError, match=message):
        check_output_folder(Path(folder), find_images(arguments))
    check_output_folder(Path("out"), find_images(arguments))
    check_output_folder(Path("photos/out"), find_images(["photos/a.png"]))
