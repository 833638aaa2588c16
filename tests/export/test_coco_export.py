"""COCO: the COCO API reads the masks back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO
from faster_coco_eval.core import mask as coder
from hypothesis import given, settings

from pipeline.export import coco
from tests.support.exported import CLASSES, MASKS, export_images, iou, scenery, target


def exported(folder: Path, **options: Any) -> tuple[dict, COCO]:
    """The scenery as written, and as the COCO API reads it."""
    records = scenery()
    coco.export(export_images(records), target(folder, records), **options)
    content = json.loads((folder / "out/annotations/instances_default.json").read_bytes())
    return content, COCO(content)


@pytest.mark.defect("irn-23")
@pytest.mark.parametrize("polygons", [False, True])
def test_coco_api_reads_the_masks(tmp_path: Path, polygons: bool) -> None:
    content, read = exported(tmp_path, polygons=polygons)
    assert [(row["id"], row["name"]) for row in content["categories"]] == list(
        enumerate(CLASSES, start=1)
    )
    files = ["a b.png", "deep/er/x.png", "empty.png", "日本 été.png"]
    assert [row["file_name"] for row in content["images"]] == files
    assert [row["id"] for row in content["annotations"]] == list(range(1, 8))
    for number, image in enumerate(export_images(scenery()), start=1):
        row = read.imgs[number]
        assert (row["height"], row["width"]) == image.size
        found = read.loadAnns(read.getAnnIds(imgIds=[number]))
        assert len(found) == len(image.masks)
        for entry, mask, c, score in zip(
            found, image.masks, image.classes, image.scores, strict=True
        ):
            assert isinstance(entry["segmentation"], list if polygons else dict)
            np.testing.assert_array_equal(read.annToMask(entry), mask)
            ys, xs = np.nonzero(mask)
            assert entry["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert (entry["area"], entry["category_id"], entry["iscrowd"]) == (mask.sum(), c + 1, 0)
            assert entry["score"] == pytest.approx(score)


@settings(max_examples=60, deadline=None)
@given(MASKS.filter(np.any))
def test_run_lengths_restore_any_mask_and_polygons_nearly(mask: np.ndarray) -> None:
    code = coco.annotation(mask, 0, 1.0)["segmentation"]
    np.testing.assert_array_equal(coder.decode(code), mask)
    polygons = coco.annotation(mask, 0, 1.0, polygons=True)["segmentation"]
    filled = coder.decode(coder.merge(coder.frPyObjects(polygons, *mask.shape)))
    assert iou(filled > 0, mask) > 0.9


def test_nothing_at_all_is_sound_json(tmp_path: Path) -> None:
    coco.export(export_images({}), target(tmp_path, {}))
    content = json.loads((tmp_path / "out/annotations/instances_default.json").read_bytes())
    assert content["images"] == content["annotations"] == []


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        exported(tmp_path / folder)
    first, second = (
        tmp_path / f"{folder}/out/annotations/instances_default.json" for folder in ("one", "two")
    )
    assert first.read_bytes() == second.read_bytes()
