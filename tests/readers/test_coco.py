"""COCO's layout: tags and masks from one JSON, and outlines against the reference coder."""

import json
from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval.core import mask as coder
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.images import DatasetError
from pipeline.data.index import Index
from pipeline.data.masks import read_instances, read_semantic
from pipeline.readers.build import build
from pipeline.readers.outlines import MaskRenderer, Outline, rasterize
from pipeline.readers.validation import check, is_held_out
from tests.support.sources import SIZE, annotation, coco_folder, mask, noise, save

CAT, DOG = [[2, 1, 8, 1, 8, 6, 2, 6]], {"size": [12, 16], "counts": [120, 12, 60]}
SEVEN, EIGHT = "000000000007", "000000000008"
LABELS = {"cat": 1, "dog": 2}


def test_tags_and_masks_are_read_back(tmp_path: Path) -> None:
    coco = coco_folder(
        tmp_path / "coco",
        [annotation(3, CAT), annotation(9, DOG), annotation(9, DOG, image=8, crowd=1)],
    )
    build("coco", coco, tmp_path / "out")
    index = Index.load(tmp_path / "out")
    assert index.classes == ("cat", "dog")
    assert (index[SEVEN].tags, index[EIGHT].tags) == ((0, 1), ())
    assert index[SEVEN].split == "train"
    np.testing.assert_array_equal(index.image(EIGHT), noise(8))
    expected = mask((1, 2, 6, 8, 1), (0, 10, 12, 11, 2))
    np.testing.assert_array_equal(read_semantic(index, SEVEN), expected)
    instances, classes = read_instances(index, SEVEN)
    assert sorted(classes.tolist()) == [0, 1]
    for k, label in enumerate(classes, start=1):
        np.testing.assert_array_equal(instances == k, expected == label + 1)
    np.testing.assert_array_equal(read_semantic(index, EIGHT), mask((0, 10, 12, 11, 255)))


def test_a_subset_has_no_other_labels(tmp_path: Path) -> None:
    coco = coco_folder(tmp_path / "coco", [annotation(3, CAT), annotation(9, DOG)])
    index = build("coco", coco, tmp_path / "out", classes=["dog"])
    assert index[SEVEN].tags == (0,)
    np.testing.assert_array_equal(read_semantic(index, SEVEN), mask((0, 10, 12, 11, 1)))
    assert read_instances(index, SEVEN)[1].tolist() == [0]


def test_rows_of_a_table_find_their_images_however_they_are_written(tmp_path: Path) -> None:
    coco = coco_folder(tmp_path / "coco", [annotation(3, CAT), annotation(9, DOG)])
    rows = [f"TRAIN2017/{SEVEN}.PNG,dog,train", f"{EIGHT},cat,test", "zebra,cat,"]
    (coco / "labels.csv").write_text("\n".join(["image,classes,split", *rows]) + "\n")
    index = build("coco", coco, tmp_path / "out")
    assert [(index[n].tags, index[n].split) for n in (SEVEN, EIGHT)] == [
        ((1,), "train"),
        ((0,), "test"),
    ]
    told = [str(problem) for problem in check("coco", coco).problems]
    assert any("no annotation file lists: 1, such as 'zebra'" in line for line in told)
    (coco / "labels.csv").write_text(f"image,classes\n{SEVEN},dog\n{SEVEN}.png,cat\n")
    with pytest.raises(DatasetError, match=f"{SEVEN}.png' already has a row"):
        build("coco", coco, tmp_path / "out")


def test_boxes_alone_give_tags_without_masks(tmp_path: Path) -> None:
    index = build("coco", coco_folder(tmp_path / "coco", [annotation(3, [])]), tmp_path / "out")
    assert index[SEVEN].tags == (0,)
    assert not index.has_masks(SEVEN)
    assert not index.has_masks(EIGHT)


def test_files_can_be_named(tmp_path: Path) -> None:
    coco = coco_folder(tmp_path / "coco", [annotation(3, CAT), annotation(9, DOG)])
    content = json.loads((coco / "annotations/instances_train2017.json").read_text())
    content["images"] = [{"id": 1, "file_name": "sub/été.png", "height": 5, "width": 9}]
    content["annotations"] = [annotation(9, {"size": [5, 9], "counts": [5, 40]}, image=1)]
    (coco / "mine.json").write_text(json.dumps(content))
    save(coco / "held out/sub/été.png", noise(3, (5, 9)))
    named = {
        "train": ("annotations/instances_train2017.json", "train2017"),
        "val": ("mine.json", "held out"),
    }
    index = build("coco", coco, tmp_path / "out", annotations=named)
    assert index.select("val") == ["sub/été"]
    np.testing.assert_array_equal(
        read_semantic(index, "sub/été"), mask((0, 1, 5, 9, 2), size=(5, 9))
    )


def test_a_lone_train_file_is_split_by_the_fraction(tmp_path: Path) -> None:
    coco = coco_folder(tmp_path / "coco", [annotation(3, CAT)])
    named = {"train": ("annotations/instances_train2017.json", "train2017"), "val": ("", "")}
    share = next(
        k / 20 for k in range(20) if is_held_out(SEVEN, k / 20) != is_held_out(EIGHT, k / 20)
    )
    index = build("coco", coco, tmp_path / "out", annotations=named, val=share)
    assert index.select("val") == [name for name in (SEVEN, EIGHT) if is_held_out(name, share)]


def test_outlines_do_not_fit_an_image_with_exif_orientation(tmp_path: Path) -> None:
    coco = coco_folder(tmp_path / "coco", [annotation(3, CAT)])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise()).save(coco / f"train2017/{SEVEN}.png", exif=exif)
    with pytest.raises(
        DatasetError,
        match="image 7: outlines for an image of 16 x 12 pixels, but the file has 12 x 16",
    ):
        build("coco", coco, tmp_path / "out")


def box(top: int, left: int, bottom: int, right: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs_of(array: np.ndarray) -> list[int]:
    """Uncompressed counts of a bool mask."""
    flat = np.concatenate([[False], array.ravel(order="F")])
    edges = np.flatnonzero(np.diff(flat)) + 1
    return np.diff(np.concatenate([[1], edges, [flat.size]])).tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_compressed_and_plain_rle_restore_the_mask(
    seed: int, height: int, width: int, share: float
) -> None:
    array = np.random.default_rng(seed).random((height, width)) < share
    packed = coder.encode(np.asfortranarray(array.astype(np.uint8)))["counts"]
    text = packed.decode() if isinstance(packed, bytes) else packed
    for counts in (text, runs_of(array)):
        result = rasterize({"size": [height, width], "counts": counts}, (height, width))
        assert result.dtype == bool
        np.testing.assert_array_equal(result, array)


def test_polygons_are_united() -> None:
    result = rasterize(box(2, 3, 6, 9) + box(4, 7, 10, 12), SIZE)
    np.testing.assert_array_equal(result, mask((2, 3, 6, 9, 1), (4, 7, 10, 12, 1)) > 0)


def test_smaller_object_is_in_front_in_any_order() -> None:
    large, small = Outline("cat", box(0, 0, 10, 14), False), Outline("dog", box(2, 2, 6, 6), False)
    expected = mask((0, 0, 10, 14, 1), (2, 2, 6, 6, 2))
    for outlines in ((large, small), (small, large)):
        semantic, instances = MaskRenderer(SIZE, outlines)(LABELS, SIZE)
        np.testing.assert_array_equal(semantic, expected)
        np.testing.assert_array_equal(instances, expected)


def test_a_crowd_is_void_behind_objects_and_no_instance() -> None:
    crowd = Outline("dog", {"size": list(SIZE), "counts": runs_of(mask((0, 0, 4, 4, 1)) > 0)}, True)
    semantic, instances = MaskRenderer(SIZE, (Outline("cat", box(2, 0, 12, 16), False), crowd))(
        LABELS, SIZE
    )
    np.testing.assert_array_equal(semantic, mask((0, 0, 4, 4, 255), (2, 0, 12, 16, 1)))
    np.testing.assert_array_equal(instances, mask((2, 0, 12, 16, 1)))


def test_an_unused_class_is_background_even_in_front() -> None:
    outlines = (Outline("cat", box(0, 0, 10, 14), False), Outline("dog", box(2, 2, 6, 6), False))
    semantic, instances = MaskRenderer(SIZE, outlines)({"cat": 1}, SIZE)
    np.testing.assert_array_equal(semantic, mask((0, 0, 10, 14, 1), (2, 2, 6, 6, 0)))
    np.testing.assert_array_equal(instances > 0, semantic > 0)
