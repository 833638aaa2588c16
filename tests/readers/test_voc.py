"""VOC's layout with tags of all three kinds."""

import io
import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.images import DatasetError
from pipeline.data.masks import read_instances, read_semantic
from pipeline.readers.build import build
from pipeline.readers.validation import check
from pipeline.readers.voc import CLASSES, read_multihot
from tests.support.sources import mask, save, voc_folder, write


def test_labels_csv_overrides_annotations(tmp_path: Path) -> None:
    voc = voc_folder(tmp_path / "voc")
    write(voc / "labels.csv", "image,classes\nx1,cat\nx2.jpg,dog cat\ny1,\n")
    index = build("voc", voc, tmp_path / "out")
    assert [p.tags for p in index.values()] == [(0,), (0, 1), ()]


@pytest.mark.defect("irn-1")
def test_pickled_tags_if_there_is_nothing_else(tmp_path: Path) -> None:
    voc = voc_folder(tmp_path / "voc", ["2007_000032"], ["2007_000039"])
    for file in (voc / "Annotations").iterdir():
        file.unlink()
    (voc / "Annotations").rmdir()
    rows = {
        np.int32(2007000032): np.array([1, 0], np.float32),
        np.int32(2007000039): np.array([1, 1], np.float32),
    }
    np.save(voc / "cls_labels.npy", np.array(rows, object))
    assert [p.tags for p in build("voc", voc, tmp_path / "out").values()] == [(0,), (0, 1)]


def test_without_classes_txt_the_classes_are_vocs_20(tmp_path: Path) -> None:
    voc = voc_folder(tmp_path / "voc")
    (voc / "classes.txt").unlink()
    index = build("voc", voc, tmp_path / "out")
    assert index.classes == CLASSES
    assert len(CLASSES) == 20
    assert index["x2"].tags == (7, 11)
    assert index.mask_values == {**{k: k for k in range(21)}, 255: 255}


def test_lists_can_be_named_and_left_out(tmp_path: Path) -> None:
    voc = voc_folder(tmp_path / "voc")
    lines = "/JPEGImages/x1.jpg /SegmentationClassAug/x1.png\nx2\n"
    write(voc / "ImageSets/Segmentation/train_aug.txt", lines)
    index = build("voc", voc, tmp_path / "out", lists={"train": "train_aug", "val": ""})
    assert index.select(None) == ["x1", "x2"]


def test_a_lone_train_list_is_split_by_the_fraction(tmp_path: Path) -> None:
    voc = voc_folder(tmp_path / "voc", [f"x{k}" for k in range(30)], [])
    index = build("voc", voc, tmp_path / "out", val=0.5, lists={"train": "train", "val": ""})
    assert Counter(p.split for p in index.values()).keys() == {"train", "val"}


def test_masks_with_void_borders_override_augmented_ones(tmp_path: Path) -> None:
    voc = voc_folder(tmp_path / "voc")
    borders, plain = mask((0, 0, 4, 4, 2), (4, 0, 5, 5, 255)), mask((0, 0, 5, 5, 2))
    save(voc / "SegmentationClass/x1.png", borders)
    for name in ("x1", "x2"):
        save(voc / f"SegmentationClassAug/{name}.png", plain)
    save(voc / "SegmentationObject/x1.png", mask((0, 0, 4, 4, 1), (4, 0, 5, 5, 255)))
    index = build("voc", voc, tmp_path / "out")
    np.testing.assert_array_equal(read_semantic(index, "x1"), borders)
    np.testing.assert_array_equal(read_semantic(index, "x2"), plain)
    assert read_instances(index, "x1")[1].tolist() == [1]
    assert not index.has_instances("x2")
    assert not index.has_masks("y1")


@pytest.mark.parametrize("objects", [mask(), mask((0, 0, 4, 4, 1))])
def test_instances_without_a_class_in_use_are_not_used(tmp_path: Path, objects: np.ndarray) -> None:
    voc = voc_folder(tmp_path / "voc")
    save(voc / "SegmentationClass/x1.png", mask((0, 0, 4, 4, 2), (6, 6, 9, 9, 1)))
    save(voc / "SegmentationObject/x1.png", objects)
    assert not build("voc", voc, tmp_path / "out").has_instances("x1")
    [problem] = [p for p in check("voc", voc).problems if "no instance of" in p.what]
    assert problem.level == "warning"
    dogs = build("voc", voc, tmp_path / "out", classes=["dog"])
    assert dogs.has_instances("x1") == bool(objects.any())


def test_a_row_without_image_and_an_image_with_two_rows(tmp_path: Path) -> None:
    voc = voc_folder(tmp_path / "voc")
    write(voc / "labels.csv", "image,classes\nx1,cat\nx2,cat\nx3,dog\nx1,dog\n")
    problems = {
        Path(p.where).name: p.what for p in check("voc", voc).problems if p.level == "error"
    }
    assert problems["labels.csv:4"] == "'x3' is not in JPEGImages"
    assert problems["labels.csv:5"] == "'x1' already has a row"


THREE = ("cat", "dog", "cow")
MULTIHOT = {
    np.int32(2007000032): np.array([1, 0, 1], np.float32),
    "x1": np.array([0, 0, 0], np.float32),
}
MULTIHOT_TAGS = {"2007_000032": {"cat", "cow"}, "x1": frozenset()}


def npy(path: Path, payload: bytes) -> Path:
    """A .npy file with any pickle behind its header."""
    stream = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(stream, header)
    path.write_bytes(stream.getvalue() + payload)
    return path


@pytest.mark.parametrize(("protocol", "old"), [(3, True), (3, False), (5, False)])
def test_pickle_protocols_and_old_module_names(tmp_path: Path, protocol: int, old: bool) -> None:
    payload = pickle.dumps(np.array(MULTIHOT, object), protocol)
    if old:
        payload = payload.replace(b"numpy._core", b"numpy.core")
    assert read_multihot(npy(tmp_path / "x.npy", payload), THREE) == MULTIHOT_TAGS


@pytest.mark.parametrize("function", [os.system, eval, getattr, np.load])
def test_a_pickle_that_refers_to_more_than_arrays_is_refused(
    tmp_path: Path, function: Callable[..., object]
) -> None:
    payload = pickle.dumps(np.array({1: function}, object), 3)
    with pytest.raises(DatasetError, match="which is refused"):
        read_multihot(npy(tmp_path / "x.npy", payload), THREE)
