"""Your own folder, from labels.csv in all the forms of spreadsheets to the index."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.data.images import DatasetError
from pipeline.data.index import Index
from pipeline.data.masks import read_instances, read_semantic
from pipeline.export.images import write_tags
from pipeline.readers.build import build
from pipeline.readers.layout import recognize
from pipeline.readers.tables import names_in, read_labels
from pipeline.readers.validation import check, is_held_out
from tests.support.sources import mask, noise, own_folder, save, write


@pytest.mark.defect("irn-9")
@pytest.mark.parametrize(
    "name", ["sub/deep/a", "with blank", "猫-ü", "a.b", "50%", "a;b", "images/a"]
)
@pytest.mark.parametrize("written", ["{}", "{}.png", "images/{}.png"])
def test_ids(tmp_path: Path, name: str, written: str) -> None:
    save(tmp_path / "own/images" / f"{name}.png", noise())
    write(tmp_path / "own/labels.csv", f"image,classes\n{written.format(name)},cat\n")
    build("folder", tmp_path / "own", tmp_path / "out")
    index = Index.load(tmp_path / "out")
    assert list(index) == [name]
    np.testing.assert_array_equal(index.image(name), noise())


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    for name in ("bus/a", "train/b"):
        save(tmp_path / f"own/{name}.png", noise())
    assert recognize(tmp_path / "own").format == "classes"
    index = build("classes", tmp_path / "own", tmp_path / "out")
    assert index.classes == ("bus", "train")
    for name in ("train/c", "val/d"):
        save(tmp_path / f"bare/{name}.png", noise())
    with pytest.raises(DatasetError, match="none of the known layouts"):
        recognize(tmp_path / "bare")


def test_split_column_overrides_the_fraction(tmp_path: Path) -> None:
    rows = [f"p{k},cat,{('train', 'val', 'test', '')[k % 4]}" for k in range(80)]
    index = build(
        "folder",
        own_folder(tmp_path / "own", rows, "image,classes,split"),
        tmp_path / "out",
        val=0.5,
    )
    for k in range(80):
        free = "val" if is_held_out(f"p{k}", 0.5) else "train"
        assert index[f"p{k}"].split == ("train", "val", "test", free)[k % 4]


def test_fraction_is_met_and_new_images_move_no_others() -> None:
    names = [f"image {k}" for k in range(4000)]
    held = [name for name in names if is_held_out(name, 0.2)]
    assert 0.17 < len(held) / len(names) < 0.23
    assert set(held) <= {name for name in names if is_held_out(name, 0.3)}
    assert not any(is_held_out(name, 0.0) for name in names)


@pytest.mark.parametrize("place", ["masks/semantic/a.png", "masks/a.png"])
def test_masks_of_all_classes(tmp_path: Path, place: str) -> None:
    own = own_folder(tmp_path / "own")
    semantic = mask((0, 0, 4, 4, 1), (6, 6, 12, 12, 2), (5, 0, 6, 16, 255))
    save(own / place, semantic)
    save(own / "masks/instances/a.png", mask((0, 0, 4, 4, 8), (6, 6, 12, 12, 3)))
    index = build("folder", own, tmp_path / "out")
    np.testing.assert_array_equal(read_semantic(index, "a"), semantic)
    instances, classes = read_instances(index, "a")
    np.testing.assert_array_equal(instances, mask((0, 0, 4, 4, 2), (6, 6, 12, 12, 1)))
    assert classes.tolist() == [1, 0]
    assert not index.has_masks("b")


def test_a_subset_in_its_own_order(tmp_path: Path) -> None:
    own = own_folder(tmp_path / "own", ("a,cat;dog;cow", "b,cat"))
    save(own / "masks/a.png", mask((0, 0, 2, 2, 1), (2, 0, 4, 2, 2), (4, 0, 6, 2, 3)))
    index = build("folder", own, tmp_path / "out", classes=["dog", "cat"])
    assert index.classes == ("dog", "cat")
    assert (index["a"].tags, index["b"].tags) == ((0, 1), (1,))
    # Values follow the sorted names cat 1, cow 2, dog 3.
    expected = mask((0, 0, 2, 2, 2), (4, 0, 6, 2, 1))
    np.testing.assert_array_equal(read_semantic(Index.load(tmp_path / "out"), "a"), expected)


def test_classes_txt_sets_order_and_names_with_blanks(tmp_path: Path) -> None:
    own = own_folder(tmp_path / "own", ("a,traffic light", "b,dog traffic"))
    write(own / "classes.txt", "dog\ntraffic light\ntraffic\n")
    index = build("folder", own, tmp_path / "out")
    assert (index["a"].tags, index["b"].tags) == ((1,), (0, 2))


def test_a_new_mask_changes_only_the_digest_of_its_image(tmp_path: Path) -> None:
    own = own_folder(tmp_path / "own")
    before = build("folder", own, tmp_path / "out")
    save(own / "masks/a.png", mask())
    after = build("folder", own, tmp_path / "out")
    assert before["a"].digest != after["a"].digest
    assert before["b"].digest == after["b"].digest
    assert before.digest != after.digest


def test_byte_order_mark_crlf_blank_lines_and_quotes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "labels.csv",
        'image,classes,split\r\n"a, b",cat,val\r\n\r\n ü , dog ,\r\n',
        "utf-8-sig",
    )
    rows = read_labels(path)
    assert [(row.image, row.cell, row.split) for row in rows] == [
        ("a, b", "cat", "val"),
        ("ü", "dog", None),
    ]
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:4"]


def test_cells_with_semicolons_reveal_names_with_blanks(tmp_path: Path) -> None:
    rows = read_labels(
        write(
            tmp_path / "l.csv", "image,classes\na,traffic light;cat\nb,traffic light\nc,dog cow\n"
        )
    )
    assert names_in(rows) == ("cat", "cow", "dog", "traffic light")


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "image,classes\na,cat,dog\nb,cat\nc\n")
    with pytest.raises(DatasetError) as caught:
        read_labels(path)
    assert [problem.where for problem in caught.value.problems] == [f"{path}:2", f"{path}:4"]
    assert "separate class names with ;" in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "untagged", "target"),  # of cat, dog, person
    [
        ("dog ?cat -person", "absent", [-1, 1, 0]),
        ("dog; ? cat; - person", "unknown", [-1, 1, 0]),
        ("dog", "absent", [0, 1, 0]),
        ("dog", "unknown", [-1, 1, -1]),
        ("dog -cat", "unknown", [0, 1, -1]),
        ("dog ?", "absent", [-1, 1, -1]),
        ("dog -", "unknown", [0, 1, 0]),
        ("-", "unknown", [0, 0, 0]),
        ("", "unknown", [-1, -1, -1]),
    ],
)
def test_marks_of_tags(tmp_path: Path, cell: str, untagged: str, target: list[int]) -> None:
    rows = [f"a,{cell}", "b,cat -dog -person", "c,dog person -cat"]
    source = own_folder(tmp_path / "own", rows)
    index = build("folder", source, tmp_path / "out", untagged=untagged)
    assert index.classes == ("cat", "dog", "person")
    assert index.target("a").tolist() == target
    write_tags(source, {name: index.tags(name) for name in index}, dict.fromkeys(index, "train"))
    again = build("folder", source, tmp_path / "again")
    for name in "abc":
        assert again.target(name).tolist() == index.target(name).tolist(), "written and read"


def test_a_class_with_a_mark_in_its_name_keeps_it(tmp_path: Path) -> None:
    source = own_folder(tmp_path / "own", ["a,-1", "b,+1"])
    write(source / "classes.txt", "-1\n+1\n")
    assert build("folder", source, tmp_path / "out")["a"].tags == (0,)


def test_marks_that_contradict_each_other_and_classes_without_negatives(tmp_path: Path) -> None:
    source = own_folder(tmp_path / "own", ["a,cat -dog", "b,dog ?cat", "c,cat;dog"])
    found = [problem.what for problem in check("folder", source).problems]
    assert found == ["class 'cat' is not marked absent in any image of split 'train'"]
    write(source / "labels.csv", "image,classes\na,cat -dog\nb,dog ?dog\n")
    assert "contradicts itself: '?dog' and 'dog'" in str(check("folder", source).problems)


def test_a_mask_of_an_unknown_class_is_no_contradiction(tmp_path: Path) -> None:
    source = own_folder(tmp_path / "own", ["a,cat ?dog", "b,dog -cat"])
    save(source / "masks/a.png", mask((1, 2, 6, 8, 1), (1, 9, 6, 12, 2)))
    save(source / "masks/b.png", mask((1, 2, 6, 8, 2)))
    assert not [p for p in check("folder", source).problems if "against the tags" in p.what]
    write(source / "labels.csv", "image,classes\na,cat\nb,dog\n")
    assert [p for p in check("folder", source).problems if "against the tags" in p.what]
