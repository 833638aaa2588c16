"""Ground-truth masks: labels, instances, void, and the archive of rendered masks."""

import os
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from pipeline.data.images import DatasetError
from pipeline.data.index import ImageEntry, Index
from pipeline.data.masks import (
    MASKS,
    number_instances,
    read_archived,
    read_instances,
    read_semantic,
    read_values,
    writing_archive,
)
from pipeline.readers.build import build
from tests.support.sources import mask, save

VALUES = {0: 0, 1: 2, 2: 1, 3: 0, 255: 255}


def make(root: Path, semantic: np.ndarray | None, instances: np.ndarray | None = None) -> Index:
    masks = {"s.png": semantic, "i.png": instances}
    for name, array in masks.items():
        if array is not None:
            save(root / name, array)
    first, second = (None if array is None else name for name, array in masks.items())
    entry = ImageEntry("p", "p.png", 12, 16, "val", (), first, second, "")
    return Index(("cat", "dog"), [entry], root, root, VALUES)


def test_values_become_labels_by_the_table(tmp_path: Path) -> None:
    stored = mask((0, 0, 4, 4, 1), (4, 0, 8, 4, 2), (8, 0, 12, 4, 3), (0, 8, 2, 16, 255))
    labels = read_semantic(make(tmp_path, stored), "p")
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(
        labels, mask((0, 0, 4, 4, 2), (4, 0, 8, 4, 1), (0, 8, 2, 16, 255))
    )


def test_a_mask_of_another_size_is_an_error(tmp_path: Path) -> None:
    index = make(tmp_path, mask(size=(16, 12)))
    with pytest.raises(DatasetError, match=r"s\.png: is 12 x 16 pixels, its image 16 x 12"):
        read_semantic(index, "p")


def test_instances_take_the_most_frequent_label(tmp_path: Path) -> None:
    semantic = mask((0, 0, 6, 8, 1), (6, 0, 12, 8, 2), (0, 8, 6, 16, 3), (0, 0, 1, 16, 255))
    ids = mask((0, 0, 5, 8, 40), (5, 0, 12, 8, 9), (0, 8, 6, 16, 12))
    instances, classes = read_instances(make(tmp_path, semantic, ids), "p")
    assert (instances.dtype, classes.dtype) == (np.uint16, np.uint8)
    # 9 covers one row of value 1 and six of value 2; 12 lies on value 3, which is background here.
    np.testing.assert_array_equal(instances, mask((1, 0, 5, 8, 2), (5, 0, 12, 8, 1)))
    assert classes.tolist() == [0, 1]


def test_255_is_void_in_8_bits_and_an_object_in_16(tmp_path: Path) -> None:
    labels, ids = mask((0, 0, 12, 16, 1)), mask((0, 0, 12, 8, 255), (0, 8, 12, 16, 4))
    assert number_instances(ids, labels)[1].tolist() == [0]
    deep, classes = number_instances(ids.astype(np.uint16), labels)
    assert classes.tolist() == [0, 0]
    assert np.unique(deep).tolist() == [1, 2]


def test_without_masks_the_error_names_the_check(tmp_path: Path) -> None:
    index = make(tmp_path, None)
    assert not index.has_masks("p")
    assert not index.has_instances("p")
    with pytest.raises(DatasetError, match="p: has no semantic mask"):
        read_semantic(index, "p")
    with pytest.raises(DatasetError, match="p: has no instance mask"):
        read_instances(index, "p")


@pytest.mark.parametrize("mode", ["P", "L", "1", "I;16"])
def test_stored_values_of_every_kind_of_png(tmp_path: Path, mode: str) -> None:
    stored = mask((2, 3, 7, 9, 1))
    dtype = {"I;16": np.uint16, "1": bool}.get(mode, np.uint8)
    image = Image.fromarray(stored.astype(dtype))
    if mode == "P":
        image.putpalette(bytes(range(255, -1, -1)) * 3)
    image.save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as reopened:
        assert reopened.mode == mode
    np.testing.assert_array_equal(read_values(tmp_path / "m.png"), stored)


def filled(path: Path) -> Path:
    with writing_archive(path) as add:
        add("a.png", b"first")
        add("b/c.png", b"second")
    return path


def test_any_tool_reads_the_archive_and_equal_files_equal_bytes(tmp_path: Path) -> None:
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


def test_an_interrupted_archive_leaves_the_old_one(tmp_path: Path) -> None:
    path = filled(tmp_path / MASKS)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), writing_archive(path) as add:
        add("a.png", b"other")
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [MASKS]


def test_a_replaced_archive_is_read_again(tmp_path: Path) -> None:
    path = filled(tmp_path / MASKS)
    assert read_archived(path, "a.png") == b"first"
    with writing_archive(path) as add:
        add("a.png", b"another")
    assert read_archived(path, "a.png") == b"another"


@pytest.mark.parametrize("damage", [lambda d: d[:40], lambda d: d.replace(b"first", b"worst")])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = filled(tmp_path / MASKS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        DatasetError, match=r"masks\.zip/a\.png: cannot be read \(.*\); .*`dvc repro dataset`"
    ):
        read_archived(path, "a.png")


def test_a_missing_archive_or_member_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"masks\.zip/a\.png: cannot be read \(.*No such file"):
        read_archived(tmp_path / MASKS, "a.png")
    with pytest.raises(DatasetError, match=r"masks\.zip/z\.png: no such file in the archive"):
        read_archived(filled(tmp_path / MASKS), "z.png")


def test_a_dataset_with_rendered_masks_can_be_moved(tmp_path: Path) -> None:
    build("scenes", Path(), tmp_path / "old", images=2, val=0.5)
    before = Index.load(tmp_path / "old")
    name = next(iter(before))
    semantic, image = read_semantic(before, name), before.image(name)
    (tmp_path / "old").rename(tmp_path / "new")
    after = Index.load(tmp_path / "new")
    np.testing.assert_array_equal(read_semantic(after, name), semantic)
    np.testing.assert_array_equal(after.image(name), image)
