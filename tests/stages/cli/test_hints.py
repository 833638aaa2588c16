"""`weakmask pick` and `weakmask hints add`: what is picked, and that masks come back exactly."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pipeline.core.artifacts import IGNORE, Reader, Writer
from pipeline.core.weights import save_weights
from pipeline.data.index import Index
from pipeline.nets.deeplab import SemanticNet
from pipeline.readers.build import build
from stages._command import read_parameters
from stages.cli.hints import CRITERIA, Evidence, choose, disagreement
from stages.cli.main import main
from stages.hints import hints
from stages.scores import scores
from tests.support.repository import set_parameters
from tests.support.runtimes import run_stage
from tests.support.sources import noise, own_folder, save, write

ROWS = ["a,cat,train", "b/c,dog;cat,train", "d,dog,train", "e,cat,val"]
SIZE = (12, 16)
FOLDER = {"dataset.format": "folder", "dataset.source": "src"}


def weakmask(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def picked(*arguments: str) -> Result:
    """Pick images by boundaries, whose order the project knows."""
    return weakmask("pick", "--by", "boundary", *arguments)


def semantic(number: int) -> np.ndarray:
    """Labels of two touching instances of one class, and one of another."""
    labels = np.zeros(SIZE, np.uint8)
    labels[1 + number : 6, 1:9], labels[7:11, 9:15] = 1, 2
    return labels


def save_model(classes: Sequence[str]) -> None:
    """Write a semantic model of these classes that nobody trained."""
    network = SemanticNet(len(classes) + 1, "test_resnet")
    path = Path("data/semantic.safetensors")
    save_weights(path, network, "semantic", backbone="test_resnet", classes=classes)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose boundaries leave the outlines of the labels in `a` least and in `d` most."""
    monkeypatch.chdir(tmp_path)
    index = build(
        "folder", own_folder(Path("src"), ROWS, "image,classes,split"), Path("data/dataset")
    )
    names, grid = index.select("train"), (3, 4)
    for kind in ("labels", "walk", "fields", "hints", "segments"):
        with Writer(Path(f"data/{kind}.h5"), kind, index.classes) as writer:
            for number, name in enumerate(names if kind not in ("hints", "segments") else ()):
                labels = semantic(number)
                ids = labels.astype(np.uint16)
                ids[:, 5:9][labels[:, 5:9] == 1] = 3
                records = {
                    "labels": {
                        "semantic": labels,
                        "instances": ids,
                        "classes": np.array([0, 1, 0]),
                        "scores": np.array([0.9, 0.8, 0.7]),
                    },
                    "walk": {
                        "maps": np.full((1, *grid), 1 - 0.25 * number),
                        "background": np.zeros(grid),
                        "classes": np.array([0]),
                        "size": np.array(SIZE),
                    },
                    "fields": {
                        "boundary": np.full(grid, 0.2 * number),
                        "displacement": np.zeros((2, *grid)),
                    },
                }
                writer.write(name, records[kind])
    save_model(index.classes)
    assert run_stage(hints, values=FOLDER).exit_code == 0
    return tmp_path


@pytest.mark.parametrize("by", CRITERIA)
def test_the_picked_images_come_with_their_labels(project: Path, by: str) -> None:
    done = weakmask("pick", "-n", "2", "--by", by, "-o", "out")
    assert done.exit_code == 0, done.output
    rows = Path("out/picked.csv").read_text().splitlines()
    assert rows[0] == f"image,{by}"
    found = [float(row.rpartition(",")[2]) for row in rows[1:]]
    assert found == sorted(found, reverse=True)
    if by == "boundary":
        assert [row.split('"')[1] for row in rows[1:]] == ["d", "b/c"]
    content = json.loads(Path("out/annotations/instances_default.json").read_text())
    assert len(content["images"]) == len(rows) - 1
    assert all((Path("out/images") / row["file_name"]).is_file() for row in content["images"])


def test_disagreement_is_how_wrong_the_model_expects_labels_to_be(project: Path) -> None:
    """Against masks that are sure; what the tags exclude does not count."""
    index, labels = Index.load(Path("data/dataset")), semantic(1)
    evidence = Evidence(index, read_parameters(), {"labels": Reader("data/labels.h5", "labels")})

    def expected(*masks: np.ndarray) -> float:
        evidence.__dict__["model"] = lambda images: np.stack(masks)[None].astype(np.float32)
        return disagreement(evidence, "b/c")

    ground, cat, dog = labels == 0, labels == 1, labels == 2
    assert expected(ground, cat, dog) == pytest.approx(0)
    excluded = np.full(SIZE, 0.9)  # b/c is tagged with both classes, not with this one
    assert expected(0.1 * ground, 0.1 * cat, 0.1 * dog, excluded) == pytest.approx(0)
    half = cat & (np.arange(SIZE[1]) < 5)
    rest = ground | (cat & ~half)
    ious = [ground.sum() / rest.sum(), half.sum() / cat.sum(), 1]
    accuracy = 1 - (cat.sum() - half.sum()) / labels.size
    assert expected(rest, half, dog) == pytest.approx(1 - (accuracy + np.mean(ious)) / 2)
    assert expected(ground, cat | dog, 0 * dog) > expected(rest, half, dog)


def test_a_model_of_other_classes_or_none_is_named(project: Path) -> None:
    save_model(["cat", "emu"])
    assert "knows other classes than data/dataset" in weakmask("pick", "-o", "out").output
    Path("data/semantic.safetensors").unlink()
    assert "data/semantic.safetensors: no such file" in weakmask("pick", "-o", "out").output


def annotated(format_: str) -> str:
    """Return what hints add reads after the tool of a format exported the masks of `out`."""
    if format_ != "labelstudio":
        return "out"
    tasks = json.loads(Path("out/tasks.json").read_text())
    for task in tasks:
        task["annotations"] = task.pop("predictions")
    write(Path("project-1.json"), json.dumps(tasks))
    return "project-1.json"


@pytest.mark.parametrize("format_", ["coco", "labelstudio", "labelme"])
def test_masks_come_back_exactly_and_are_not_picked_again(project: Path, format_: str) -> None:
    assert picked("-n", "2", "--format", format_, "-o", "out").exit_code == 0
    done = weakmask("hints", "add", annotated(format_))
    assert "added 2 images to src/hints/corrected.json" in done.output, done.output
    assert run_stage(hints, values=FOLDER).exit_code == 0
    labels, found = Reader("data/labels.h5"), Reader("data/hints.h5", "hints")
    assert found.names == ["b/c", "d"]
    for name in found:
        given, record = labels[name], found[name]
        tags = [0, *(c + 1 for c in Index.load(Path("data/dataset"))[name].tags)]
        kept = np.isin(given["semantic"], tags)
        np.testing.assert_array_equal(record["pixels"], np.where(kept, given["semantic"], IGNORE))
        pairs = {*zip(given["instances"][kept], record["instances"][kept], strict=True)}
        assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})
        assert (record["objects"][:, 1:] == 1).all()
    assert picked("-n", "9", "-o", "next").exit_code == 0
    assert [row.split(",")[0] for row in Path("next/picked.csv").read_text().splitlines()[1:]] == [
        '"a"'
    ]


def test_a_later_correction_replaces_the_earlier_one_of_the_same_image(project: Path) -> None:
    """Whatever the export is called; those of other images stay."""
    assert picked("-n", "2", "-o", "out").exit_code == 0
    assert weakmask("hints", "add", "out").exit_code == 0
    kept = json.loads(Path("src/hints/corrected.json").read_text())
    tool = own_folder(Path("tool-v1.0"), ["d,dog"])
    save(tool / "masks/d.png", np.zeros(SIZE, np.uint8))
    assert weakmask("hints", "add", "tool-v1.0").exit_code == 0
    assert run_stage(hints, values=FOLDER).exit_code == 0
    found = Reader("data/hints.h5", "hints")
    assert found.names == ["b/c", "d"]
    assert not found["d"]["pixels"].any()
    assert not len(found["d"]["objects"])
    written = json.loads(Path("src/hints/corrected.json").read_text())
    assert written["categories"] == kept["categories"]
    assert [row["id"] for row in written["annotations"]] == [
        k + 1 for k in range(len(written["annotations"]))
    ]
    assert weakmask("hints", "add", "--trial", "1", "tool-v1.0").exit_code == 0
    assert run_stage(hints, values=FOLDER).exit_code == 0
    assert Reader("data/hints.h5", "hints").names == ["b/c"]
    write(Path("src/hints/corrected.json"), json.dumps({**kept, "images": [{}]}))
    assert "name the file otherwise" in weakmask("hints", "add", "out").output


def test_an_export_in_which_nothing_is_left_says_background(project: Path) -> None:
    picked("-n", "2", "-o", "out")
    path = Path("out/annotations/instances_default.json")
    write(path, json.dumps({**json.loads(path.read_text()), "annotations": []}))
    done = weakmask("hints", "add", "out")
    assert done.exit_code == 0, done.output
    assert "split" not in done.output, "it is no training set"
    run_stage(hints, values=FOLDER)
    assert not any(record["pixels"].any() for record in Reader("data/hints.h5", "hints").values())


def test_boxes_alone_are_no_correction(project: Path) -> None:
    picked("-n", "1", "-o", "out")
    path = Path("out/annotations/instances_default.json")
    content = json.loads(path.read_text())
    for row in content["annotations"]:
        row["segmentation"] = []
    write(path, json.dumps(content))
    assert "has no mask; export the masks, not only boxes" in weakmask("hints", "add", "out").output


def test_labels_of_images_that_are_gone_are_named(project: Path) -> None:
    build("folder", own_folder(Path("less"), ROWS[1:], "image,classes,split"), Path("data/dataset"))
    done = picked("-o", "out")
    assert done.exit_code == 1
    assert "data/labels.h5: data/dataset lacks 'a' (1 of 3 images)" in done.output


def test_masks_of_another_tool_come_back(project: Path) -> None:
    """Void says nothing, and classes may have another order."""
    drawn = np.where(semantic(0) == 2, 255, semantic(0) * 2).astype(np.uint8)
    tool = own_folder(Path("tool"), ["a,cat"])
    save(tool / "masks/a.png", drawn)
    (tool / "classes.txt").write_text("dog\ncat\n")
    done = weakmask("hints", "add", "tool")
    assert done.exit_code == 0, done.output
    run_stage(hints, values=FOLDER)
    expected = np.where(drawn == 255, IGNORE, semantic(0))
    np.testing.assert_array_equal(Reader("data/hints.h5")["a"]["pixels"], expected)


def test_segmentation_masks_of_cvat_come_back(project: Path) -> None:
    """As CVAT exports `Segmentation mask 1.1` with images."""
    drawn, colors = semantic(0), np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    save(Path("tool/SegmentationClass/a.png"), colors[drawn])
    save(Path("tool/SegmentationObject/a.png"), colors[drawn])
    write(Path("tool/ImageSets/Segmentation/default.txt"), "a\n")
    rows = ["# label:color_rgb:parts:actions", "background:0,0,0::", "cat:128,0,0::"]
    write(Path("tool/labelmap.txt"), "\n".join([*rows, "dog:0,128,0::", ""]))
    save(Path("tool/JPEGImages/a.png"), noise())
    done = weakmask("hints", "add", "tool")
    assert done.exit_code == 0, done.output
    write(Path("src/labels.csv"), "image,classes,split\na,cat;dog,train\ne,cat,val\n")
    build("folder", Path("src"), Path("data/dataset"))
    assert run_stage(hints, values=FOLDER).exit_code == 0
    np.testing.assert_array_equal(Reader("data/hints.h5")["a"]["pixels"], drawn)


def test_a_trial_set_is_scored_and_no_step_learns_of_it(project: Path) -> None:
    """Half of what was corrected; the interval holds the score."""
    weakmask("pick", "-n", "2", "--by", "random", "--format", "labelme", "-o", "out")
    for path in Path("out/images").rglob("*.json"):  # a correction
        content = json.loads(path.read_text())
        content["shapes"] = [s for s in content["shapes"] if s["label"] == "dog"]
        write(path, json.dumps(content))
    before = Path("data/hints.h5").read_bytes()
    for share, known in ((1.0, 0), (0.5, 1)):
        assert weakmask("hints", "add", "--trial", str(share), "out").exit_code == 0
        assert run_stage(hints, values=FOLDER).exit_code == 0
        assert len(Reader("data/hints.h5", "hints")) == known
        assert (Path("data/hints.h5").read_bytes() == before) == (not known)
        assert run_stage(scores, "labels", values=FOLDER).exit_code == 0
        found = json.loads(Path("data/scores/labels.json").read_text())["labels"]
        assert 0 < found["miou_low"] <= found["miou"] <= found["miou_high"] <= 100
        rows = Path("data/scores/labels/images.csv").read_text().splitlines()[1:]
        scored = {row.split(",")[0] for row in rows}
        assert len(scored) == 2 - known
        assert scored.isdisjoint(Reader("data/hints.h5", "hints").names)
    assert "95 %" in weakmask("scores").output
    picked("-n", "9", "-o", "next")
    assert len(Path("next/picked.csv").read_text().splitlines()) == 2, "none of the trial set"
    assert weakmask("hints", "add", "out").exit_code == 0
    assert not Path("src/hints/trial/corrected.json").exists()


@pytest.mark.parametrize("format_", ["labelstudio", "labelme"])
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [("dog", "emu", "emu is not a class"), ("16", "15", "is 15 x|15 x 12"), ("}", "", "not valid")],
)
def test_a_file_that_cannot_be_used_is_named(
    project: Path, format_: str, old: str, new: str, words: str
) -> None:
    picked("-n", "2", "--format", format_, "-o", "out")
    export = annotated(format_)
    path = Path(export) if format_ == "labelstudio" else Path("out/images/d.json")
    path.write_text(path.read_text().replace(old, new))
    done = weakmask("hints", "add", export)
    assert done.exit_code == 1, done.output
    assert re.search(rf"{path}.*({words})", done.output), done.output


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["z,cat"], "z is not an image of the dataset"),
        (["a,emu"], "emu is not a class of the dataset"),
    ],
)
def test_what_does_not_belong_to_the_dataset_is_refused(
    project: Path, rows: Sequence[str], words: str
) -> None:
    tool = own_folder(Path("tool"), rows)
    save(tool / f"masks/{rows[0][0]}.png", np.ones(SIZE, np.uint8))
    done = weakmask("hints", "add", "tool")
    assert done.exit_code == 1
    assert words in done.output
    assert not Path("src/hints").exists()


def test_scenes_take_no_hints(project: Path) -> None:
    set_parameters(Path(), {"dataset.format": "scenes"})
    own_folder(Path("tool"), ["a,cat"])
    assert "use a folder of yours" in weakmask("hints", "add", "tool").output


def test_classes_take_turns() -> None:
    tags = {"a": [0], "b": [0], "c": [0, 1], "d": [1], "e": []}
    values = {"a": 0.9, "b": 0.8, "c": 0.1, "d": 0.2, "e": 0.85}
    assert choose(values, tags, 3, spread=False) == ["a", "e", "b"]
    assert choose(values, tags, 3, spread=True) == ["a", "d", "b"]
    assert choose(values, tags, 9, spread=True)[-1] == "e"


def test_scores_leave_out_what_persons_said_and_nothing_said_is_no_image(project: Path) -> None:
    assert len(Reader("data/hints.h5", "hints")) == 0
    for name in ("a", "d"):
        save(Path(f"src/masks/{name}.png"), semantic(0))
    build("folder", Path("src"), Path("data/dataset"))

    def scored(**files: str) -> list[str]:
        """Return the images that are scored with these points."""
        for name, text in files.items():
            write(Path(f"src/hints/{name}.csv"), f"image,class,x,y\n{text}\n")
        for stage, *arguments in ((hints,), (scores, "labels")):
            assert run_stage(stage, *arguments, values=FOLDER).exit_code == 0
        rows = Path("data/scores/labels/images.csv").read_text().splitlines()[1:]
        return [row.split(",")[0] for row in rows]

    assert scored() == ["a", "d"]
    assert scored(first="d,cat,1,1") == ["a", "d"], "gated"
    assert scored(second="d,dog,1,1") == ["a"]
