"""VOC: torchvision and a parser of labelmap.txt read the maps back."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import UserError
from pipeline.export import voc
from pipeline.export.images import Target
from tests.support.exported import CLASSES, export_images, record, scenery, target, values


def test_maps_and_lists_are_read_back(tmp_path: Path) -> None:
    records = scenery()
    summary = voc.export(export_images(records), target(tmp_path, records))
    assert summary.instances == 7
    out = tmp_path / "out"
    lists = {
        path.stem: path.read_text().splitlines()
        for path in (out / "ImageSets/Segmentation").iterdir()
    }
    assert lists == {"val": ["a b"], "train": ["deep/er/x", "empty", "日本 été"]}
    for image in export_images(records):
        classes, objects = (
            values(out / f"{folder}/{image.name}.png")
            for folder in ("SegmentationClass", "SegmentationObject")
        )
        np.testing.assert_array_equal(classes, image.semantic)
        front = np.zeros(image.size, np.float32)
        for mask, score in zip(image.masks, image.scores, strict=True):
            front = np.maximum(front, mask * score)
        for number, score in enumerate(image.scores, start=1):
            np.testing.assert_array_equal(objects == number, front == score)
        np.testing.assert_array_equal(objects == 255, (classes == 255) & (front == 0))


def test_torchvision_reads_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    records = {"2007_000001": scenery()["a b"], "2007_000002": scenery()["deep/er/x"]}
    # torchvision looks below VOCdevkit for images named .jpg
    files = target(tmp_path, records).files
    for path in files.values():
        path.rename(path.with_suffix(".jpg"))
    files = {name: path.with_suffix(".jpg") for name, path in files.items()}
    splits = dict.fromkeys(records, "val")
    voc.export(
        export_images(records),
        Target(tmp_path / "VOCdevkit/VOC2012", CLASSES, files, splits, "copy"),
    )
    read = datasets.VOCSegmentation(str(tmp_path), year="2012", image_set="val")
    assert len(read) == 2
    for (image, mask), entry in zip(read, records.values(), strict=True):
        assert image.size == mask.size
        np.testing.assert_array_equal(np.array(mask), entry["semantic"])


def test_labelmap_names_the_colors_of_the_maps(tmp_path: Path) -> None:
    records = scenery()
    voc.export(export_images(records), target(tmp_path, records))
    lines = (tmp_path / "out/labelmap.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# label:color_rgb:parts:actions"
    fields = [line.split(":") for line in lines[1:]]
    assert all(len(line) == 4 for line in fields)
    assert [line[0] for line in fields] == ["background", *CLASSES, "ignored"]
    colors = {
        tuple(map(int, line[1].split(","))): label
        for line, label in zip(fields, (0, 1, 2, 3, 255), strict=True)
    }
    with Image.open(tmp_path / "out/SegmentationClass/a b.png") as image:
        painted = np.array(image.convert("RGB"))
    labels = np.array([[colors[tuple(pixel)] for pixel in row] for row in painted.tolist()])
    np.testing.assert_array_equal(labels, records["a b"]["semantic"])


def test_colors_are_those_of_voc() -> None:
    colors = voc.color_map().tolist()
    assert colors[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert (colors[20], colors[255]) == ([0, 64, 128], [224, 224, 192])


@pytest.mark.parametrize("name", ["a:b", "#a", "background", "ignored", " a", "a\nb"])
def test_class_names_that_labelmap_cannot_represent_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="labelmap"):
        voc.format_labelmap(["cat", name])


def test_what_is_lost_is_counted(tmp_path: Path) -> None:
    masks = np.zeros((3, 6, 8), bool)
    masks[0, 1:3, 1:3], masks[1, :4, :4], masks[2, 5, 5:] = True, True, True
    semantic = np.where(masks[1], 2, 0).astype(np.uint8)
    records = {"a": record(masks, [0, 1, 2], [0.2, 0.9, 0.9], semantic)}
    summary = voc.export(export_images(records), target(tmp_path, records))
    assert summary.instances == 2
    assert summary.lost == [
        "instances wholly behind others: 1",
        "instances mostly on another class of the semantic map: 1",
    ]


def test_lists_come_last(tmp_path: Path) -> None:
    records = scenery() | {"zz": record(np.ones((1, 4, 4), bool), [9], [1])}
    with pytest.raises(UserError, match="class 9"):
        voc.export(export_images(records), target(tmp_path, records, "none"))
    assert len(list((tmp_path / "out/SegmentationClass").rglob("*.png"))) == 3, "those before it"
    assert not list((tmp_path / "out").rglob("*.txt"))


def test_too_many_instances_for_a_byte_are_refused(tmp_path: Path) -> None:
    masks = np.eye(256, dtype=bool).reshape(256, 16, 16)
    for count in (254, 255):
        records = {"many": record(masks[:count], [0] * count, [1] * count)}
        if count == 254:
            voc.export(export_images(records), target(tmp_path, records))
            assert len(np.unique(values(tmp_path / "out/SegmentationObject/many.png"))) == 255
        else:
            with pytest.raises(UserError, match=r"'many' has 255 instances"):
                voc.export(export_images(records), target(tmp_path, records))
