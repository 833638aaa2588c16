"""The index: round trip with equal bytes, and errors for damaged files."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.images import DatasetError
from pipeline.data.index import COLUMNS, ImageEntry, Index

NAMES = ["b/ü 2", "a", '猫, "quoted"', "c"]


def make(root: Path, classes: tuple[str, ...] = ("cat", "traffic light")) -> Index:
    images = []
    for k, name in enumerate(NAMES):
        split, tags, digest = ("train", "val")[k % 2], (0, 1)[: k % 3], f"{k:032x}"
        images.append(ImageEntry(name, f"images/{k}.png", 12, 16, split, tags, None, None, digest))
    return Index(classes, images, root, root, {0: 0, 2: 1, 1: 2, 255: 255})


def test_round_trip(tmp_path: Path) -> None:
    index = make(tmp_path)
    index.save(tmp_path)
    loaded = Index.load(tmp_path)
    assert dict(pickle.loads(pickle.dumps(loaded))) == dict(index), "for worker processes"
    assert loaded.classes == index.classes
    assert loaded.mask_values == index.mask_values
    assert loaded.images_root == loaded.masks_root == tmp_path
    assert loaded.digest == index.digest


def test_unknown_classes(tmp_path: Path) -> None:
    index = make(tmp_path)
    entries = [replace(entry, tags=(), unknown=(1,)) for entry in index.values()]
    marked = Index(index.classes, entries, tmp_path, tmp_path, index.mask_values)
    marked.save(tmp_path)
    loaded = Index.load(tmp_path)
    assert dict(loaded) == dict(marked)
    assert loaded.target("a").tolist() == [0, -1]
    assert loaded.tags("a") == ["?traffic light"]
    assert marked.digest != index.digest


def test_order_is_sorted(tmp_path: Path) -> None:
    index = make(tmp_path)
    reverse = reversed(list(index.values()))
    again = Index(index.classes, reverse, tmp_path, tmp_path, index.mask_values)
    assert list(again) == list(index) == sorted(NAMES)
    assert again.digest == index.digest


def test_a_root_elsewhere_is_kept_unchanged(tmp_path: Path) -> None:
    index = make(Path("some/where"))
    index.save(tmp_path)
    assert Index.load(tmp_path).images_root == Path("some/where")


def test_select(tmp_path: Path) -> None:
    index = make(tmp_path)
    assert index.select("val") == sorted([NAMES[1], NAMES[3]])
    assert index.select(None) == sorted(NAMES)
    with pytest.raises(DatasetError, match="split 'test'; its splits are train, val"):
        index.select("test")


def test_digest_depends_on_content_not_place(tmp_path: Path) -> None:
    index = make(tmp_path)
    assert make(tmp_path / "elsewhere").digest == index.digest
    assert make(tmp_path, ("dog", "traffic light")).digest != index.digest
    fewer = Index(index.classes, list(index.values())[1:], tmp_path, tmp_path, index.mask_values)
    assert fewer.digest != index.digest


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("index.json", None, "index.json: no such file"),
        ("index.json", "{", "index.json: damaged"),
        ("index.json", "[]", "is not the index of a dataset"),
        ("index.json", '{"format": "weakmask dataset", "version": 99}', "99, this program reads 2"),
        ("index.json", '{"format": "weakmask dataset", "version": 2}', "index.json: damaged"),
        ("images.csv", None, "images.csv: no such file"),
        ("images.csv", "id,path\n", "the columns are not id"),
        ("images.csv", f"{','.join(COLUMNS)}\na,b,1\n", "damaged"),
    ],
)
def test_a_damaged_index_says_how_to_recreate_it(
    tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    make(tmp_path).save(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(DatasetError, match=f"{message}.*dvc repro dataset"):
        Index.load(tmp_path)


def test_a_truncated_table_is_noticed(tmp_path: Path) -> None:
    make(tmp_path).save(tmp_path)
    lines = (tmp_path / "images.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    for kept in (lines[:-1], [*lines[:-1], lines[-1][:-3]]):
        (tmp_path / "images.csv").write_text("".join(kept), encoding="utf-8")
        with pytest.raises(
            DatasetError, match=r"images.csv.*does not match index.json.*dvc repro dataset"
        ):
            Index.load(tmp_path)


@pytest.mark.parametrize("file", ["../../secret.png", "/etc/passwd", "a/../../b.png"])
@pytest.mark.parametrize("column", ["path", "semantic", "instances"])
def test_paths_never_leave_the_roots(tmp_path: Path, file: str, column: str) -> None:
    entry = ImageEntry("a", "a.png", 12, 16, "train", (), None, None, "0")
    changes: dict[str, Any] = {column: file}
    Index(("cat",), [replace(entry, **changes)], tmp_path, tmp_path, {0: 0}).save(tmp_path)
    with pytest.raises(DatasetError, match=r"images\.csv: damaged .*which leaves the folder"):
        Index.load(tmp_path)
