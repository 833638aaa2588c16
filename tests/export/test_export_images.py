"""Images and files of an export: records of both layouts, names, folders, files."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.export.images import Target, flatten, prepare
from tests.support.exported import export_images, label_record, record
from tests.support.sources import noise, save

MASKS = np.zeros((3, 6, 11), bool)
MASKS[0, 1:4, 2:9], MASKS[1, 2:5, 5:11] = True, True


def test_both_layouts_give_the_same_masks() -> None:
    ids = np.zeros((6, 11), np.uint16)
    ids[MASKS[0]] = 1
    ids[MASKS[1]] = 2
    (labels,) = export_images({"a": label_record(ids, [2, 0])})
    (predictions,) = export_images({"a": record(np.stack([ids == 1, ids == 2]), [2, 0], [1, 0.5])})
    for image in (labels, predictions):
        np.testing.assert_array_equal(image.masks, [ids == 1, ids == 2])
        assert (image.size, image.classes.tolist()) == ((6, 11), [2, 0])
        assert image.scores.tolist() == [1, 0.5]


def test_low_scores_and_empty_instances_are_counted() -> None:
    read = export_images({"a": record(MASKS, [0, 1, 2], [0.3, 0.2, 0.9])}, min_score=0.25)
    (image,) = read
    np.testing.assert_array_equal(image.masks, MASKS[:1])
    assert (image.classes.tolist(), read.left_out) == ([0], 2)


def test_colliding_names_are_both_named() -> None:
    assert flatten(["a/b", "a c", "é"]) == {"a/b": "a_b", "a c": "a c", "é": "é"}
    with pytest.raises(UserError, match=r"'a/b_c' and 'a_b/c'"):
        flatten(["a/b_c", "a_b/c"])


def test_a_folder_that_is_not_empty_needs_force(tmp_path: Path) -> None:
    prepare(tmp_path / "new/deep", force=False)
    prepare(tmp_path / "new/deep", force=False)
    (tmp_path / "new/mine.txt").write_text("x")
    with pytest.raises(UserError, match=r"not empty.*--force"):
        prepare(tmp_path / "new", force=False)
    prepare(tmp_path / "new", force=True)
    assert (tmp_path / "new/mine.txt").read_text() == "x"
    with pytest.raises(UserError, match=r"mine\.txt: cannot be created"):
        prepare(tmp_path / "new/mine.txt", force=True)


@pytest.mark.parametrize("how", ["copy", "link"])
def test_image_files_are_unchanged_and_can_be_replaced(tmp_path: Path, how: str) -> None:
    source = tmp_path / "a b.jpg"
    files = {"a": source, "b": tmp_path / "nowhere.jpg"}
    target = Target(tmp_path / "out", (), files, {}, how)  # type: ignore[arg-type]
    save(source, noise())
    for _ in range(2):
        target.place("a", "ü/a b.jpg")
    assert [path.read_bytes() for path in (tmp_path / "out/ü").iterdir()] == [source.read_bytes()]
    assert (tmp_path / "out/ü/a b.jpg").samefile(source) == (how == "link")
    with pytest.raises(UserError, match=r"nowhere\.jpg"):
        target.place("b", "x.jpg")
