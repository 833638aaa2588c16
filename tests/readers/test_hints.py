"""Hints: what each kind of file says, gating by tags, provenance, and damaged files."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.artifacts import Record, validate_record
from pipeline.data.images import DatasetError, Problem
from pipeline.data.index import Index
from pipeline.export.coco import annotation
from pipeline.readers.build import build
from pipeline.readers.hints import Hints, read_hints, render
from pipeline.readers.layout import recognize
from pipeline.readers.validation import check
from tests.support.sources import SIZE, mask, own_folder, save, write

CAT, DOG = 1, 2
HEAD = "image,class,x,y"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Image a shows a cat, b a cat and a dog, c is held out."""
    return own_folder(
        tmp_path / "src",
        ["a,cat,train", "b,dog;cat,train", "c,cat,val"],
        f"{HEAD[:5]},classes,split",
    )


def index_of(source: Path) -> Index:
    return build("folder", source, source.parent / "dataset")


def said(source: Path, name: str = "a", segments: np.ndarray | None = None) -> Record:
    index = index_of(source)
    record = render(read_hints(source, index).images[name], index, name, segments)
    return validate_record("hints", record)


def coco(source: Path, *rows: dict[str, Any], file: str = "x.json", image: str = "a.png") -> None:
    content = {
        "images": [{"id": 1, "file_name": f"some/where/{image.upper()}"}],
        "categories": [
            {"id": k, "name": name} for k, name in enumerate(("background", "cat", "dog", "emu"))
        ],
        "annotations": [{"id": k, "image_id": 1, **row} for k, row in enumerate(rows)],
    }
    write(source / "hints" / file, json.dumps(content))


def outline(
    label: int, top: int, left: int, bottom: int, right: int, *, score: float | None = None
) -> dict[str, Any]:
    """An annotation whose mask is a box."""
    row = annotation(mask((top, left, bottom, right, 1)) > 0, label - 1, 1.0)
    return {**row, "score": score}


def test_nothing_is_said_without_a_folder(source: Path) -> None:
    assert read_hints(source, index_of(source)) == Hints(images={})


@pytest.mark.parametrize("file", ["a.png", "model/a.png"])
def test_a_mask_says_nothing_at_255_and_tags_gate_it(source: Path, file: str) -> None:
    drawn = mask((0, 0, 6, 8, CAT), (0, 8, 6, 16, DOG), (6, 0, 12, 8, 255))
    save(source / "hints" / file, drawn)
    record = said(source)
    assert record["gated"].tolist() == [DOG - 1]
    if file == "a.png":
        np.testing.assert_array_equal(record["pixels"], np.where(drawn == DOG, 255, drawn))
        assert not len(record["classes"])
    else:
        assert (record["pixels"] == 255).all()
        assert record["classes"].tolist() == [CAT - 1]
        np.testing.assert_array_equal(record["evidence"][0], drawn == CAT)


def test_masks_of_a_json_with_scores_are_evidence_and_without_a_persons(source: Path) -> None:
    coco(
        source,
        outline(CAT, 0, 0, 4, 4, score=0.75),
        outline(CAT, 2, 2, 6, 6, score=0.25),
        outline(DOG, 0, 8, 12, 16, score=0.9),
        outline(DOG, 0, 0, 4, 4, score=0.9),
        outline(3, 0, 8, 12, 16, score=0.9),
        outline(CAT, 8, 0, 12, 4),
        {**outline(CAT, 8, 4, 12, 8), "iscrowd": 1},
        outline(0, 8, 8, 12, 16),
        {"category_id": CAT, "bbox": [1, 2, 3, 4], "score": 0.5},
    )
    record = said(source)
    assert (record["gated"].tolist(), record["classes"].tolist()) == ([DOG - 1] * 2, [CAT - 1])
    expected = np.maximum(mask((0, 0, 4, 4, 1)) * 0.75, mask((2, 2, 6, 6, 1)) * 0.25)
    np.testing.assert_array_equal(record["evidence"][0], expected)
    pixels = np.full(SIZE, 255)
    pixels[8:12, :8], pixels[8:12, 8:] = CAT, 0
    np.testing.assert_array_equal(record["pixels"], pixels)
    assert record["objects"].tolist() == [[0, 0.75, 0], [0, 0.25, 0], [0, 1, 1]]
    expected_ids = mask((0, 0, 4, 4, 1), (2, 2, 6, 6, 2), (8, 0, 12, 4, 3))
    np.testing.assert_array_equal(record["instances"], expected_ids)
    assert record["boxes"].tolist() == [[0, 0.5, 0, 1, 2, 4, 6]]


def test_points_and_scribbles_speak_for_the_segments_under_them(source: Path) -> None:
    rows = ["b,cat,1.5,1.5,", "b,dog,10,1,s", "b,dog,13,1,s", "b,cat,10,10,", "b,dog,14,10,"]
    write(source / "hints/p.csv", "\n".join([f"{HEAD},stroke", *rows]))
    segments = mask((0, 0, 6, 8, 1), (0, 8, 6, 16, 2), (6, 0, 12, 8, 3), (6, 8, 12, 16, 4))
    pixels = said(source, "b", segments)["pixels"]
    assert (pixels[:6, :8] == CAT).all()
    assert (pixels[:6, 8:] == DOG).all()
    assert (pixels[6:, :8] == 255).all()
    assert (pixels[10, 10], pixels[10, 14], pixels[8, 12]) == (CAT, DOG, 255), "two share one"
    alone = said(source, "b")["pixels"]
    assert (alone[1, 10:14] == DOG).all()
    assert (alone[1, 1], alone[10, 10]) == (CAT, CAT)
    assert (alone == CAT).sum() < 40


def test_keypoints_are_points_or_else_there_is_the_box(source: Path) -> None:
    place = {"category_id": CAT, "bbox": [0, 0, 9, 9]}
    coco(source, {**place, "keypoints": [3, 3, 2, 8, 8, 0, 13, 3, 1]})
    record = said(source)
    assert record["pixels"][[3, 3, 3, 8], [3, 8, 13, 8]].tolist() == [CAT, 255, CAT, 255]
    assert not len(record["boxes"])
    coco(source, {**place, "keypoints": [3, 3, 0]})
    record = said(source)
    assert (record["pixels"] == 255).all()
    assert len(record["boxes"]) == 1


def test_a_models_mask_of_an_image_without_tags_is_gated(tmp_path: Path) -> None:
    source = own_folder(tmp_path / "src", ["a,,train", "b,cat,train"], f"{HEAD[:5]},classes,split")
    save(source / "hints/model/a.png", mask((0, 0, 6, 8, CAT)))
    record = said(source)
    assert record["gated"].tolist() == [CAT - 1]
    assert record["evidence"].shape == (0, *SIZE)


@pytest.mark.parametrize("file", ["x.json", "_annotations.coco.json"])
def test_hints_are_no_images_and_no_layout(source: Path, tmp_path: Path, file: str) -> None:
    folders = tmp_path / "folders"
    for name in ("cat/a", "dog/b"):
        save(folders / f"{name}.png", mask())
    before, classes = index_of(source).digest, build("classes", folders, tmp_path / "x")
    for root in (source, folders):
        save(root / "hints/cat/a.png", mask())
        coco(root, file=file)
    assert [recognize(root).format for root in (source, folders)] == ["folder", "classes"]
    assert index_of(source).digest == before
    assert build("classes", folders, tmp_path / "x").digest == classes.digest


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("p.csv", "image,klass,x,y", "the first line is"),
        ("p.csv", f"{HEAD}\na,cat,1", "p.csv:2"),
        ("p.csv", f"{HEAD}\na,cat,one,2", "p.csv:2"),
        ("p.csv", f"{HEAD}\na,cat,nan,2", "p.csv:2"),
        ("p.csv", f"{HEAD}\na,emu,1,2", "'emu' is not a class"),
        ("p.csv", f"{HEAD}\na,cat,1,12", "outside the image"),
        ("p.csv", f'{HEAD}\na,"cat', "cannot be read as CSV"),
        ("x.json", "{", "not valid JSON"),
        ("x.json", '{"images": []}', "annotations"),
        (
            "x.json",
            '{"images": [{"id": 1, "file_name": 5}], "annotations": [{"image_id": 1}], '
            '"categories": []}',
            "belongs to image 1",
        ),
    ],
)
def test_a_bad_file_is_named(source: Path, file: str, text: str, words: str) -> None:
    write(source / "hints" / file, text)
    with pytest.raises(DatasetError, match=words):
        said(source)
    assert re.search(words, str(DatasetError(checked(source))))


def checked(source: Path) -> list[Problem]:
    """What `weakmask check` reports."""
    return list(check("folder", source).problems)


def test_check_reports_every_problem_of_hints(source: Path) -> None:
    assert not [problem for problem in checked(source) if "hints" in problem.where]
    save(source / "hints/a.png", mask((0, 0, 6, 8, CAT)))
    save(source / "hints/c.png", mask())
    coco(source, outline(CAT, 0, 0, 3, 3), outline(CAT, 0, 0, 3, 3), image="zebra.png")
    write(source / "hints/model/a.png", "no image")
    write(source / "hints/p.csv", f"{HEAD}\na,emu,1,2\nb,cat,99,2")
    found = [(problem.level, str(problem)) for problem in checked(source)]
    for level, words in (
        ("error", "model/a.png: "),
        ("error", "p.csv:2: 'emu' is not a class"),
        ("error", "p.csv:3: has a point outside"),
        ("warning", "hints on 2 images, such as 'c', are not used"),
    ):
        assert [one for one in found if one[0] == level and words in one[1]], words


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"score": 2, "bbox": [0, 0, 2, 2]}, "score 2"),
        ({"score": [1], "bbox": [0, 0, 2, 2]}, "must be a string or a real number"),
        ({"bbox": [0, 0, 2]}, "bbox"),
        ({"bbox": [0, 0, "wide", 2]}, "bbox"),
        ({"bbox": [0, 0, float("inf"), 2]}, "bbox"),
        ({"bbox": [0, 0, 0, 2]}, "no area"),
        ({"segmentation": [[0, 0, 99, 0, 99, 99]]}, "far outside"),
        ({"image_id": 7}, "not listed"),
    ],
)
def test_a_bad_annotation_is_named(source: Path, row: dict[str, Any], words: str) -> None:
    coco(source, {"category_id": CAT, **row})
    with pytest.raises(DatasetError, match=f"annotation 0.*{words}|x.json.*{words}"):
        said(source)
