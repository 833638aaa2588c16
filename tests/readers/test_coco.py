"""COCO's layout: tags and masks out of one json."""

import json
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from pipeline.data.index import Index
from pipeline.data.masks import read_instances, read_semantic
from pipeline.data.problems import DatasetError
from pipeline.readers.build import build
from pipeline.readers.validation import check, held_out
from tests.support.sources import annotation, coco_folder, mask, noise, save

CAT, DOG = [[2, 1, 8, 1, 8, 6, 2, 6]], {"size": [12, 16], "counts": [120, 12, 60]}
SEVEN, EIGHT = "000000000007", "000000000008"


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


def test_a_lone_train_file_leaves_the_choice_to_the_share(tmp_path: Path) -> None:
    coco = coco_folder(tmp_path / "coco", [annotation(3, CAT)])
    named = {"train": ("annotations/instances_train2017.json", "train2017"), "val": ("", "")}
    share = next(k / 20 for k in range(20) if held_out(SEVEN, k / 20) != held_out(EIGHT, k / 20))
    index = build("coco", coco, tmp_path / "out", annotations=named, val=share)
    assert index.select("val") == [name for name in (SEVEN, EIGHT) if held_out(name, share)]


def test_every_kind_of_damage_is_listed_at_once(tmp_path: Path) -> None:
    rows = [
        annotation(5, CAT),
        annotation(3, CAT, image=99),
        annotation(3, [[1, 2, 3]]),
        annotation(3, {"size": [16, 12], "counts": [192]}, image=8),
    ]
    coco = coco_folder(tmp_path / "coco", rows)
    path = coco / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    extra = {"height": 12, "width": 16}
    content["images"] += [
        {"id": 20, "file_name": "../away.png", **extra},
        {"id": 21, "file_name": "gone.png", **extra},
        {"id": 7, "file_name": "again.png", **extra},
        {"id": 22, "file_name": "no size.png"},
        {"id": [1], "file_name": "x.png", **extra},
    ]
    path.write_text(json.dumps(content))
    text = "\n".join(str(p) for p in check("coco", coco) if p.level == "error")
    for part in (
        "is of category 5, which is no class; valid are 3, 9",
        "annotations of image 99, which is not listed",
        "image 7: a polygon needs at least three points",
        "image 8: run lengths of size [16, 12]",
        "the id '../away' leaves the folder",
        "gone.png: cannot be read",
        "two images of id 7",
        "image 22 lacks a sound id, file_name, height or width",
        "image [1] lacks a sound id",
    ):
        assert part in text
    assert len(text.splitlines()) == 9


def test_a_turned_image_is_told_apart_from_its_outlines(tmp_path: Path) -> None:
    coco = coco_folder(tmp_path / "coco", [annotation(3, CAT)])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise()).save(coco / f"train2017/{SEVEN}.png", exif=exif)
    with pytest.raises(
        DatasetError,
        match="image 7: outlines for an image of 16 x 12 pixels, but the file has 12 x 16",
    ):
        build("coco", coco, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no json"),
        ("[]", "has no list 'images'"),
        ('{"images": [1]}', "has no list 'images'"),
        ("[" * 10**5, "is no json"),
    ],
)
def test_a_json_of_another_kind_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    coco = coco_folder(tmp_path / "coco", [])
    (coco / "annotations/instances_train2017.json").write_text(content)
    with pytest.raises(DatasetError, match=rf"instances_train2017\.json: {message}"):
        build("coco", coco, tmp_path / "out")


@pytest.mark.parametrize("categories", [[(1, "cat"), (2, "cat")], [(1, "cat"), (1, "dog")]])
def test_categories_of_equal_name_or_number_are_errors(
    tmp_path: Path, categories: list[tuple[int, str]]
) -> None:
    with pytest.raises(DatasetError, match="categories of equal id or name"):
        build("coco", coco_folder(tmp_path / "coco", [], categories), tmp_path / "out")


def test_a_folder_of_images_that_is_missing_is_named_once(tmp_path: Path) -> None:
    coco = coco_folder(tmp_path / "coco", [])
    (coco / "train2017").rename(coco / "elsewhere")
    [problem] = check("coco", coco)
    assert str(problem).endswith("train2017: no such folder; put the images there")


def test_rebuilding_takes_old_masks_away(tmp_path: Path) -> None:
    coco = coco_folder(tmp_path / "coco", [annotation(3, CAT)])
    build("coco", coco, tmp_path / "out")
    first = (tmp_path / "out/masks.zip").read_bytes()
    with ZipFile(tmp_path / "out/masks.zip", "a") as archive:
        archive.writestr("semantic/stale.png", b"stale")
    build("coco", coco, tmp_path / "out")
    assert (tmp_path / "out/masks.zip").read_bytes() == first
    with ZipFile(tmp_path / "out/masks.zip") as archive:
        assert {Path(name).stem for name in archive.namelist()} == {SEVEN, EIGHT}
