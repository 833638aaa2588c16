"""The archive of drawn masks: equal bytes, readable by any tool, and damage that is told."""

import os
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from pipeline.data.index import Index
from pipeline.data.masks import MASKS, read_archived, read_instances, read_semantic, writing_archive
from pipeline.data.problems import DatasetError
from pipeline.readers.build import build


def filled(path: Path) -> Path:
    with writing_archive(path) as add:
        add("a.png", b"first")
        add("b/c.png", b"second")
    return path


def test_any_tool_reads_it_and_equal_files_give_equal_bytes(tmp_path: Path) -> None:
    path = filled(tmp_path / "one" / MASKS)
    assert path.read_bytes() == filled(tmp_path / "other" / MASKS).read_bytes()
    with ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "a.png": b"first",
            "b/c.png": b"second",
        }
        archive.extractall(tmp_path / "out")
    assert (tmp_path / "out/a.png").read_bytes() == b"first"
    assert read_archived(path, "b/c.png") == b"second"


def test_nothing_is_left_of_one_that_was_given_up(tmp_path: Path) -> None:
    path = filled(tmp_path / MASKS)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), writing_archive(path) as add:
        add("a.png", b"other")
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [MASKS]


def test_a_new_file_of_the_same_name_is_read(tmp_path: Path) -> None:
    path = filled(tmp_path / MASKS)
    assert read_archived(path, "a.png") == b"first"
    with writing_archive(path) as add:
        add("a.png", b"another")
    assert read_archived(path, "a.png") == b"another"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_one_that_is_cut_short_is_named(tmp_path: Path, share: float) -> None:
    path = filled(tmp_path / MASKS)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(
        DatasetError, match=r"masks\.zip/a\.png: cannot be read \(.*\); .*`dvc repro dataset`"
    ):
        read_archived(path, "a.png")


def test_flipped_bytes_are_noticed(tmp_path: Path) -> None:
    path = filled(tmp_path / MASKS)
    path.write_bytes(path.read_bytes().replace(b"first", b"worst"))
    with pytest.raises(DatasetError, match=r"masks\.zip/a\.png: cannot be read \(.*CRC"):
        read_archived(path, "a.png")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"masks\.zip/a\.png: cannot be read \(.*No such file"):
        read_archived(tmp_path / MASKS, "a.png")
    with pytest.raises(DatasetError, match=r"masks\.zip/z\.png: no such file in the archive"):
        read_archived(filled(tmp_path / MASKS), "z.png")


def test_a_dataset_with_drawn_masks_can_be_moved(tmp_path: Path) -> None:
    build("scenes", Path(), tmp_path / "old", images=2, val=0.5)
    before = Index.load(tmp_path / "old")
    name = next(iter(before))
    semantic, (ids, classes) = read_semantic(before, name), read_instances(before, name)
    (tmp_path / "old").rename(tmp_path / "new")
    after = Index.load(tmp_path / "new")
    assert np.array_equal(read_semantic(after, name), semantic)
    assert np.array_equal(read_instances(after, name)[0], ids)
    assert np.array_equal(read_instances(after, name)[1], classes)
    assert after.image(name).shape[:2] == semantic.shape
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "images",
        "index.json",
        MASKS,
        "images.csv",
    }
