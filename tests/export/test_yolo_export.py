"""YOLO: the polygons, filled as Ultralytics and supervision fill them, restore the masks."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings

from pipeline.errors import UserError
from pipeline.export import yolo
from pipeline.export.polygons import trace
from tests.support.exported import CLASSES, MASKS, export_images, iou, record, scenery, target


def read_line(line: str, size: tuple[int, int], rounding: str) -> tuple[int, np.ndarray]:
    """Class and mask of a line, truncated like Ultralytics or rounded like supervision."""
    c, *shares = line.split()
    points = np.array(shares, np.float32).reshape(-1, 2)
    assert len(points) >= 3
    assert (points >= 0).all()
    assert (points < 1).all()
    points *= np.array(size[::-1], np.float32)
    points = np.round(points) if rounding == "round" else points
    return int(c), cv2.fillPoly(np.zeros(size, np.uint8), [points.astype(np.int32)], 1).astype(bool)


@pytest.mark.parametrize("rounding", ["truncate", "round"])
def test_files_restore_the_masks(tmp_path: Path, rounding: str) -> None:
    records = scenery()
    summary = yolo.export(export_images(records), target(tmp_path, records))
    out = tmp_path / "out"
    stems = {path.stem for path in (out / "labels").iterdir()}
    assert stems == {"a b", "deep_er_x", "empty", "日本 été"}
    for image in export_images(records):
        lines = (out / f"labels/{image.name.replace('/', '_')}.txt").read_text().splitlines()
        assert len(lines) == len(image.masks)
        for line, mask, c in zip(lines, image.masks, image.classes, strict=True):
            found, filled = read_line(line, image.size, rounding)
            assert found == c
            assert filled[mask].all()
            assert iou(filled, mask) > 0.95
            if len(trace(mask)) == 1:
                assert iou(filled, mask) > 0.99
    assert summary.instances == 7
    assert "joined" in summary.lost[0]


@settings(max_examples=60, deadline=None)
@given(MASKS.filter(np.any))
def test_lines_are_filled_as_their_polygons(mask: np.ndarray) -> None:
    for polygon in trace(mask):
        filled = cv2.fillPoly(np.zeros(mask.shape, np.uint8), [polygon.astype(np.int32)], 1) > 0
        for rounding in ("truncate", "round"):
            line = yolo.format_line(mask.shape, 0, polygon)
            np.testing.assert_array_equal(read_line(line, mask.shape, rounding)[1], filled)


def test_parts_can_be_lines_of_their_own(tmp_path: Path) -> None:
    mask = np.zeros((1, 9, 12), bool)
    mask[0, 1:4, 1:4] = mask[0, 6, 8:] = True
    records = {"a": record(mask, [1], [1])}
    summary = yolo.export(export_images(records), target(tmp_path, records), parts="split")
    lines = (tmp_path / "out/labels/a.txt").read_text().splitlines()
    masks = [read_line(line, (9, 12), "truncate")[1] for line in lines]
    np.testing.assert_array_equal(masks[0] | masks[1], mask[0])
    assert not (masks[0] & masks[1]).any()
    assert summary.lost[0] == "instances in several parts, written as several: 1"


def test_lists_and_names_lead_to_images_and_labels(tmp_path: Path) -> None:
    records = scenery()
    yolo.export(export_images(records), target(tmp_path, records))
    out = tmp_path / "out"
    data = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))
    assert data == {"train": "train.txt", "val": "val.txt", "names": dict(enumerate(CLASSES))}
    for split, count in (("train", 3), ("val", 1)):
        paths = (out / data[split]).read_text(encoding="utf-8").splitlines()
        assert len(paths) == count
        for path in paths:
            assert path.startswith("./images/")
            assert (out / path).is_file()
            assert (out / path.replace("images", "labels")).with_suffix(".txt").is_file()


def test_a_missing_split_is_named_so(tmp_path: Path) -> None:
    records = {"empty": scenery()["empty"]}
    summary = yolo.export(export_images(records), target(tmp_path, records, "none"))
    data = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert (data.get("val"), "train" in data) == ("val.txt", False)
    assert summary.lost == ["data.yaml has no train, without which Ultralytics does not train"]
    assert not (tmp_path / "out/images").exists()
    assert (tmp_path / "out/labels/empty.txt").read_text() == ""


def test_names_that_collide_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    records = dict.fromkeys(["a/b_c", "a_b/c"], scenery()["empty"])
    with pytest.raises(UserError, match=r"'a/b_c' and 'a_b/c'"):
        yolo.export(export_images(records), target(tmp_path, records))
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("default")
def test_supervision_reads_it(tmp_path: Path) -> None:
    supervision = pytest.importorskip(
        "supervision", reason="needs the annotation library supervision"
    )
    records = scenery()
    yolo.export(export_images(records), target(tmp_path, records))
    out = tmp_path / "out"
    read = supervision.DetectionDataset.from_yolo(
        str(out / "images"), str(out / "labels"), str(out / "data.yaml"), force_masks=True
    )
    assert read.classes == list(CLASSES)
    assert len(read) == 4
    for image in export_images(records):
        name = image.name.replace("/", "_")
        found = next(value for path, value in read.annotations.items() if Path(path).stem == name)
        assert len(found) == len(image.masks)
        for k, mask in enumerate(image.masks):
            assert found.class_id[k] == image.classes[k]
            assert found.mask[k][mask].all()
            if len(trace(mask)) == 1:
                assert iou(found.mask[k], mask) > 0.99
