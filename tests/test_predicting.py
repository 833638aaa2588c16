"""Results of images as files: masks that readers understand, and images that cannot be read beside
others that can.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.errors import UserError
from pipeline.export.voc import color_map
from pipeline.instances.base import Detections
from pipeline.predict import Output, labelmap, predict_instances, predict_labels, spare_images
from pipeline.readers.inputs import find_images
from tests.support.runtimes import runtime

CLASSES = ("cat", "dog, or wolf", "日本")
NO_CRF = {"iterations": 0}


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


def output(photos: Path, *, overlays: bool = True) -> Output:
    return Output(photos.parent / "out", CLASSES, overlays, find_images([str(photos)]).files)


def red(images: Tensor) -> np.ndarray:
    """Probabilities that make a label of each pixel's red."""
    labels = (images[:, 0].long() + 30) // 60
    return torch.nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2).float().numpy()


def two_halves(images: Sequence[Tensor]) -> list[Detections]:
    """The left half as a dog and, behind it, the whole image as a cat; nothing in images of 24
    columns.
    """
    found = []
    for image in images:
        masks = torch.ones(2, *image.shape[1:], dtype=torch.bool)
        masks[0, :, image.shape[2] // 2 :] = False
        count = 0 if image.shape[2] == 24 else 2
        found.append(
            Detections(
                masks[:count], torch.tensor([1, 0])[:count], torch.tensor([0.9, 0.25])[:count]
            )
        )
    return found


@pytest.mark.parametrize("batch", [1, 3])
def test_label_maps_are_palette_images_of_the_upright_image(photos: Path, batch: int) -> None:
    outcome = predict_labels(red, output(photos), NO_CRF, runtime(photos, batch=batch))
    assert outcome.images == 4
    for name, number in (("a", 0), ("b", 1), ("sub/a", 2)):
        with Image.open(f"out/masks/{name}.png") as mask:
            assert mask.mode == "P"
            assert mask.getpalette()[:12] == color_map()[:4].ravel().tolist()
            values = np.asarray(mask)
        assert values.shape == (20, 30 if number % 2 else 24)
        assert (values[4:12, 3:17] == 1 + number).all()
        assert (values[14:, 10:] == 3).all()
    with Image.open("out/masks/turned.png") as mask:
        assert mask.size == (20, 30), "upright by EXIF"
    with Image.open("out/overlays/turned.jpg") as drawn:
        assert drawn.width == 20
    assert not list(Path("out").rglob("*.part"))


def test_a_image_that_cannot_be_read_is_named_and_the_others_go_on(photos: Path) -> None:
    for outcome in (
        predict_labels(red, output(photos), NO_CRF, runtime(photos)),
        predict_instances(two_halves, output(photos), runtime(photos)),
    ):
        assert outcome.images == 4
        assert list(outcome.failures) == ["bad.jpg"]
        assert "photos/bad.jpg: is damaged" in outcome.failures["bad.jpg"]


def test_a_network_that_fails_fails_for_one_image_alone(photos: Path) -> None:
    def narrow(images: Tensor) -> np.ndarray:
        if images.shape[3] == 30:
            raise ValueError("too wide")
        return red(images)

    outcome = predict_labels(
        narrow, output(photos, overlays=False), NO_CRF, runtime(photos, batch=2)
    )
    assert outcome.failures["b.png"].endswith("photos/b.png: ValueError: too wide")
    assert outcome.images == 3
    assert not Path("out/overlays").exists()


def test_instances_are_a_json_that_coco_reads(photos: Path) -> None:
    from faster_coco_eval import COCO

    outcome = predict_instances(two_halves, output(photos), runtime(photos))
    assert (outcome.images, outcome.instances) == (4, 4)
    content = json.loads(Path("out/instances.json").read_bytes())
    assert [row["file_name"] for row in content["images"]] == [
        "a.png",
        "b.png",
        "sub/a.png",
        "turned.jpg",
    ]
    assert [row["name"] for row in content["categories"]] == list(CLASSES)
    coco = COCO(content)
    (wide,) = (row for row in coco.imgs.values() if row["file_name"] == "b.png")
    dog, cat = coco.loadAnns(coco.getAnnIds(imgIds=[wide["id"]]))
    assert (dog["category_id"], dog["bbox"], dog["area"]) == (2, [0, 0, 15, 20], 300)
    assert (cat["category_id"], round(cat["score"], 6)) == (1, 0.25)
    assert coco.annToMask(dog)[:, :15].all()
    assert not coco.annToMask(dog)[:, 15:].any()
    assert coco.annToMask(cat).all()
    assert len(coco.loadRes(content["annotations"]).anns) == 4


@pytest.mark.slow
def test_processes_write_the_same_files(photos: Path) -> None:
    for number in range(12):
        Image.fromarray(np.full((8, 9, 3), 60 * (number % 4), np.uint8)).save(
            photos / f"more{number}.png"
        )
    predict_labels(red, output(photos), NO_CRF, runtime(photos))
    alone = {path: path.read_bytes() for path in Path("out").rglob("*.*")}
    predict_labels(red, output(photos), NO_CRF, runtime(photos, workers=2))
    assert alone == {path: path.read_bytes() for path in Path("out").rglob("*.*")}
    assert len(alone) == 1 + 2 * 16


def test_an_interrupted_run_leaves_whole_files_and_can_start_again(photos: Path) -> None:
    def interrupted(images: Sequence[Tensor]) -> list[Detections]:
        if images[0].shape[2] == 30:
            raise KeyboardInterrupt
        return two_halves(images)

    with pytest.raises(KeyboardInterrupt):
        predict_instances(interrupted, output(photos), runtime(photos, batch=1))
    assert not [path for path in Path("out").iterdir() if path.is_file()], (
        "no json without all images, and no part of one"
    )
    assert predict_instances(two_halves, output(photos), runtime(photos)).images == 4
    assert Path("out/instances.json").is_file()


def test_labelmap_says_what_values_mean() -> None:
    rows = list(csv.DictReader(labelmap(CLASSES).decode().splitlines()))
    assert [row["name"] for row in rows] == ["background", *CLASSES]
    assert [row["value"] for row in rows] == ["0", "1", "2", "3"]
    assert [int(rows[2][color]) for color in ("red", "green", "blue")] == color_map()[2].tolist()


@pytest.mark.parametrize(
    ("folder", "arguments", "message"),
    [
        ("photos", ["photos"], "-o photos: lies in photos, where the images are"),
        ("photos/out", ["photos"], "lies in photos"),
        (
            "photos",
            ["photos/overlays/x.png"],
            "photos/overlays/x.png: lies where -o photos is written to",
        ),
    ],
)
def test_results_never_lie_among_the_images(
    photos: Path, folder: str, arguments: list[str], message: str
) -> None:
    (photos / "overlays").mkdir()
    (photos / "overlays/x.png").touch()
    with pytest.raises(UserError, match=message):
        spare_images(Path(folder), find_images(arguments))
    spare_images(Path("out"), find_images(arguments))
    spare_images(Path("photos/out"), find_images(["photos/a.png"]))
