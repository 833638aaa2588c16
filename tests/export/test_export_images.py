"""Images and files of an export: what is left out, folders, files."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.export.images import Target, prepare
from tests.support.exported import export_images, record
from tests.support.sources import noise, save

MASKS = np.zeros((3, 6, 11), bool)
MASKS[0, 1:4, 2:9], MASKS[1, 2:5, 5:11] = True, True


def test_low_scores_and_empty_instances_are_counted() -> None:
    read = export_images({"a": record(MASKS, [0, 1, 2], [0.5, 0.2, 0.9])}, min_score=0.25)
    (image,) = read
    np.testing.assert_array_equal(image.masks, MASKS[:1])
    assert (image.classes.tolist(), image.scores.tolist(), read.left_out) == ([0], [0.5], 2)


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
