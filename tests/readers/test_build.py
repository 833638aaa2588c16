"""The entry of stage dataset: rendered scenes, equal bytes, all problems of a source at once."""

import logging
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.images import DatasetError
from pipeline.data.index import Index
from pipeline.data.masks import read_instances, read_semantic
from pipeline.readers import scenes
from pipeline.readers.build import build, is_val
from pipeline.readers.validation import check
from tests.support.sources import (
    annotation,
    coco_folder,
    noise,
    own_folder,
    save,
    voc_folder,
)


def content(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_scenes_are_what_was_drawn(tmp_path: Path) -> None:
    build("scenes", Path(), tmp_path, images=4, seed=3, val=0.5)
    index = Index.load(tmp_path)
    assert index.classes == tuple(scenes.CLASSES)
    assert [p.split for p in index.values()] == ["train", "val", "train", "val"]
    for k, name in enumerate(index):
        scene = scenes.draw(k, 3)
        np.testing.assert_array_equal(index.image(name), scene.image)
        np.testing.assert_array_equal(read_semantic(index, name), scene.semantic)
        instances, classes = read_instances(index, name)
        np.testing.assert_array_equal(instances, scene.instances)
        np.testing.assert_array_equal(classes, scene.classes)
        assert index[name].tags == scene.tags


def test_scenes_of_a_subset(tmp_path: Path) -> None:
    wanted = (scenes.CLASSES[2], scenes.CLASSES[0])
    index = build("scenes", Path(), tmp_path, images=6, classes=wanted)
    assert index.classes == wanted
    for k, name in enumerate(index):
        scene = scenes.draw(k, 0)
        expected = np.zeros_like(scene.semantic)
        expected[scene.semantic == 3], expected[scene.semantic == 1] = 1, 2
        np.testing.assert_array_equal(read_semantic(index, name), expected)
        assert index[name].tags == tuple(
            sorted({2: 0, 0: 1}[tag] for tag in scene.tags if tag in (0, 2))
        )
    with pytest.raises(
        DatasetError, match=f"'lynx' is not a class of the source; valid are {scenes.CLASSES[0]}, "
    ):
        build("scenes", Path(), tmp_path, classes=["lynx"])


@pytest.mark.parametrize("val", [0.0, 0.1, 0.25, 0.29, 1 / 3, 0.5])
def test_held_out_scenes_are_evenly_spaced(val: float) -> None:
    for count in (10, 100, 480):
        assert sum(is_val(k, val) for k in range(count)) == int(count * val + 1e-9)


def test_scenes_have_equal_bytes_for_any_workers_and_runs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    build("scenes", Path(), out, images=3, val=0.4)
    first = content(out)
    assert len(first) == 3 + 3
    build("scenes", Path(), out, images=5, val=0.4)
    build("scenes", Path(), out, images=3, val=0.4, workers=2)
    assert content(out) == first


def test_sources_have_equal_bytes_for_any_workers(tmp_path: Path) -> None:
    coco_folder(tmp_path / "coco", [annotation(3, [[2, 1, 8, 1, 8, 6]])])
    voc_folder(tmp_path / "voc")
    own_folder(tmp_path / "folder")
    for name in ("coco", "voc", "folder"):
        build(name, tmp_path / name, tmp_path / "1" / name)
        build(name, tmp_path / name, tmp_path / "2" / name, workers=2)
        assert content(tmp_path / "1" / name) == content(tmp_path / "2" / name)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    build(
        "folder",
        own_folder(tmp_path / "own"),
        tmp_path / "out",
        progress=lambda *step: seen.append(step),
    )
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize("val", [1.0, float("nan")])
def test_a_fraction_outside_its_range(tmp_path: Path, val: float) -> None:
    with pytest.raises(DatasetError, match="use a fraction from 0 to below 1"):
        build("scenes", Path(), tmp_path, val=val)


def test_index_is_never_written_to_the_source(tmp_path: Path) -> None:
    own = own_folder(tmp_path / "own")
    before = content(own)
    with pytest.raises(DatasetError, match="is the source folder itself"):
        build("folder", own, tmp_path / "x" / ".." / "own")
    assert content(own) == before


def test_files_of_others_in_the_output_folder_stay(tmp_path: Path) -> None:
    save(tmp_path / "out/images/mine.png", noise())
    build("folder", own_folder(tmp_path / "own"), tmp_path / "out")
    assert (tmp_path / "out/images/mine.png").is_file()


def test_warnings_are_logged_in_short(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = own_folder(tmp_path / "own", [f"p{k:02d}," for k in range(9)] + ["q,cat"])
    with caplog.at_level(logging.WARNING):
        assert len(build("folder", own, tmp_path / "out")) == 10
    line, rare = caplog.messages
    assert "class 'cat' has one image" in rare
    places = [f"labels.csv:{row}" for row in (2, 3, 4)]
    assert "'p00' has no tags; ignore this if" in line
    assert "9 like this" in line
    assert all(place in line for place in places)


@pytest.mark.parametrize(
    ("usual", "rare", "images", "warned"),
    [
        ("cat", "cta", 3, True),
        ("horse", "hores", 4, True),
        ("horse", "hrse", 4, True),
        ("boat", "Boats", 4, True),
        ("cat", "car", 2, False),  # not rare enough
        ("cat", "cow", 9, False),
        ("grade 1", "grade 2", 9, False),
        ("a", "b", 9, False),
    ],
)
def test_check_and_stage_warn_of_rare_near_spellings_and_lone_images(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    usual: str,
    rare: str,
    images: int,
    warned: bool,
) -> None:
    rows = [f"p{k},{usual};" for k in range(images)] + [f"q,{rare};"]
    own = own_folder(tmp_path / "own", rows)
    survey = check("folder", own)
    near = f"class {rare!r} (1 image) may be a misspelled {usual!r} ({images})"
    found = [problem.what for problem in survey.problems]
    assert found == [near] * warned + [f"class {rare!r} has one image"]
    assert str(survey).startswith(f"{images + 1} images: {images + 1} train; none with")
    build("folder", own, tmp_path / "out")
    assert caplog.messages == [f"dataset: {problem}" for problem in survey.problems]


def test_a_val_split_of_one_image(tmp_path: Path) -> None:
    rows = ["a,cat,train", "b,cat,train", "c,cat,val"]
    own = own_folder(tmp_path / "own", rows, "image,classes,split")
    found = [problem.what for problem in check("folder", own).problems]
    assert found == ["has one image in split 'val'"]
