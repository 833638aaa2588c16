"""`weakmask export` on a tiny dataset: what it writes, prints and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from pipeline.core.artifacts import Reader, Writer
from pipeline.data.index import Index
from pipeline.data.masks import read_instances, read_semantic
from pipeline.errors import UserError
from pipeline.readers.build import build
from stages._command import DATASET
from stages.cli.export import export
from stages.cli.main import main
from tests.support.sources import SIZE, mask, noise, own_folder

NOTHING: dict[str, np.ndarray] = {
    "semantic": np.zeros(SIZE),
    "instances": np.zeros(SIZE),
    "classes": np.zeros(0),
    "scores": np.zeros(0),
}


@pytest.fixture
def labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """data/labels.h5 of three images, one in a subfolder and one of split val."""
    monkeypatch.chdir(tmp_path)
    splits = {"a b": "train", "deep/c": "val", "日本": "train"}
    rows = [f"{name},cat;big dog,{split}" for name, split in splits.items()]
    index = build("folder", own_folder(Path("mine"), rows, "image,classes,split"), DATASET)
    ids = mask((1, 2, 5, 9, 1), (6, 9, 11, 16, 2)).astype(np.uint16)
    record: dict[str, np.ndarray] = {
        "semantic": np.array([0, 2, 1], np.uint8)[ids],
        "instances": ids,
        "classes": np.array([1, 0]),
        "scores": np.array([0.9, 0.2]),
    }
    with Writer(tmp_path / "data/labels.h5", "labels", index.classes) as writer:
        for name in index:
            writer.write(name, record)
    return tmp_path / "data/labels.h5"


def run(*arguments: str) -> Result:
    """The command; a UserError stays one, since its group turns it into a line."""
    return CliRunner().invoke(export, arguments)


def test_a_split_a_score_and_a_path_can_be_chosen(labels: Path) -> None:
    chosen = ("--split", "train", "--min-score", "0.5", "--polygons")
    result = run(str(labels), "--format", "coco", "-o", "out", *chosen)
    assert "wrote 2 images and 2 instances" in result.output
    assert "left out below --min-score 0.5 or without a pixel: 2" in result.output
    content = json.loads(Path("out/annotations/instances_train.json").read_bytes())
    assert [row["file_name"] for row in content["images"]] == ["a b.png", "日本.png"]
    assert [row["name"] for row in content["categories"]] == ["big dog", "cat"]
    assert all(isinstance(row["segmentation"], list) for row in content["annotations"])


def test_force_replaces_files_of_the_export_alone(labels: Path) -> None:
    run("--format", "yolo", "-o", "out", "--split", "train")
    Path("out/mine.txt").write_text("mine")
    again = run("--format", "yolo", "-o", "out", "--split", "val")
    assert isinstance(again.exception, UserError)
    assert "--force" in str(again.exception)
    assert not Path("out/val.txt").exists()
    assert run("--format", "yolo", "-o", "out", "--split", "val", "--force").exit_code == 0
    assert Path("out/mine.txt").read_text() == "mine"
    assert "train: train.txt\nval: val.txt\n" in Path("out/data.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["labels", "--format", "voc", "-o", "out", "--polygons"], "--polygons"),
        (["labels", "--format", "coco", "-o", "out", "--parts", "join"], "--parts"),
        (["labels", "--format", "voc", "-o", "out", "--split", "test"], "train, val"),
        (["labels", "--format", "voc", "-o", "mine"], "where the dataset is"),
        (
            ["labels", "--format", "voc", "-o", "data/dataset/voc", "--force"],
            "where the dataset is",
        ),
        (["nowhere.h5", "--format", "voc", "-o", "out"], "nowhere.h5"),
        (["seeds.h5", "--format", "voc", "-o", "out"], "labels, predictions"),
        (["others.h5", "--format", "voc", "-o", "out"], "'stranger'"),
        (["val.h5", "--format", "voc", "-o", "out", "--split", "train"], "its splits: val"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    labels: Path, arguments: list[str], message: str
) -> None:
    with Writer(Path("seeds.h5"), "seeds", ["cat"]) as writer:
        writer.write("a b", {"seeds": np.zeros(SIZE)})
    for file, name in (("others.h5", "stranger"), ("val.h5", "deep/c")):
        with Writer(Path(file), "labels", ["big dog", "cat"]) as writer:
            writer.write(name, NOTHING)
    result = run(*arguments)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert not Path("out").exists()


@pytest.mark.parametrize("form", ["voc", "coco"])
def test_an_export_is_a_source_with_the_same_index(labels: Path, form: str) -> None:
    index = Index.load(DATASET)
    whole = Reader(labels)["a b"]
    with Writer(labels, "labels", index.classes) as writer:
        for name in index:  # a tag stays one where the pseudo-label has nothing of it
            writer.write(name, NOTHING if name == "deep/c" else whole)
    chosen = ("--images", "copy", "--min-score", "0")
    assert run("labels", "--format", form, "-o", "out", *chosen).exit_code == 0
    found = CliRunner().invoke(main, ["init", "--no-time", "--source", "out"])
    assert found.exit_code == 0, found.output
    checked = CliRunner().invoke(main, ["check"])
    assert "0 errors" in checked.output, checked.output
    section = yaml.safe_load(Path("params.yaml").read_text())["dataset"]
    coco = section["coco"]
    named = {split: (coco[split], coco[f"{split}_images"]) for split in ("train", "val")}
    again = build(
        section["format"], Path("out"), Path("again"), lists=section["voc"], annotations=named
    )
    assert again.classes == index.classes
    fields = ("id", "height", "width", "split", "tags")
    for name in index:
        assert all(getattr(again[name], key) == getattr(index[name], key) for key in fields)
        np.testing.assert_array_equal(again.image(name), index.image(name))
        shown = set() if name == "deep/c" else {0, 1}
        assert set(read_instances(again, name)[1].tolist()) == shown
        assert set(np.unique(read_semantic(again, name))) == {0, *(c + 1 for c in shown)}


def test_an_export_to_yolo_is_a_source(labels: Path) -> None:
    chosen = ("--images", "copy", "--min-score", "0")
    assert run("labels", "--format", "yolo", "-o", "out", *chosen).exit_code == 0
    assert CliRunner().invoke(main, ["init", "--no-time", "--source", "out"]).exit_code == 0
    again = build("yolo", Path("out"), Path("again"))
    assert {p.id: (p.split, p.tags) for p in again.values()} == {
        "a b": ("train", (0, 1)),
        "deep_c": ("val", (0, 1)),
        "日本": ("train", (0, 1)),
    }
    np.testing.assert_array_equal(read_semantic(again, "a b"), Reader(labels)["a b"]["semantic"])


@pytest.mark.parametrize("images", ["copy", "link", "none"])
@pytest.mark.parametrize("form", ["voc", "coco", "yolo"])
def test_every_format_has_upright_copies(labels: Path, form: str, images: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a b", "日本"):
        path = Path(f"mine/images/{name}.png")
        Image.fromarray(noise(1, SIZE[::-1])).save(path, exif=exif)
    build("folder", Path("mine"), DATASET)
    result = run("--format", form, "-o", "out", "--images", images)
    assert result.exit_code == 0, result.output
    assert "wrote 3 images and 6 instances to out" in result.output
    assert not list(Path("out").rglob("*.part"))
    folder = "JPEGImages" if form == "voc" else "images"
    assert len([*Path("out", folder).rglob("*.png")]) == (0 if images == "none" else 3)
    if images == "copy":
        file = Path("out", folder, "a b.png")
        with Image.open(file) as image:
            assert image.size == SIZE[::-1]
            assert image.getexif().get(0x0112, 1) == 1
            expected = Index.load(DATASET).image("a b")
            np.testing.assert_array_equal(np.asarray(image), expected)
    else:
        assert "rotated against their masks: 2, such as a b, 日本; --images copy" in result.output
