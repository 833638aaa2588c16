"""The whole graph on unusual data ends with valid artifacts."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner
from markupsafe import escape

from pipeline.core.artifacts import Reader, Record
from stages.cli.main import main
from tests.support.degenerate import (
    TRAINED,
    Photo,
    check_artifacts,
    check_report,
    check_scores,
    finite_table,
    run_graph,
    write_source,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def record(folder: Path, format_: str, name: str) -> Record:
    """Return the record of an image."""
    return Reader(folder / "data" / f"{format_}.h5", format_)[name]


def untagged_images_are_background(folder: Path) -> None:
    assert not record(folder, "seeds", "empty")["seeds"].any()
    labels = record(folder, "labels", "empty")
    assert not labels["semantic"].any()
    assert not labels["instances"].any()
    rows = finite_table(folder / "data/scores/labels/images.csv")
    assert {row["id"]: row["miou"] for row in rows}["empty"] == "1.0"


def the_invisible_scores_nothing(folder: Path) -> None:
    rows = {row["class"]: row for row in finite_table(folder / "data/scores/labels/classes.csv")}
    assert (rows["dog"]["recall"], rows["dog"]["AP50"]) == ("", "")


def tables_of_no_image_have_a_header(folder: Path) -> None:
    table = folder / "data/scores/predictions/images.csv"
    assert table.read_text() == "id,miou,foreground_iou\n"


def anything(folder: Path) -> None:
    """Check nothing of a case's own."""


@dataclass(frozen=True, slots=True)
class Case:
    """A source, parameters for it, what the run must say, and a check of its own."""

    photos: Sequence[Photo]
    classes: Sequence[str] = ("cat", "dog")
    values: Mapping[str, object] = field(default_factory=dict)
    said: str = ""
    check: Callable[[Path], None] = anything


CAT, DOG, BOTH = ("cat",), ("dog",), ("cat", "dog")
SPOTS = [Photo("dot", size=(1, 1)), Photo("spot", size=(1, 1), split="val")]
MIXED = [
    *(Photo("p0", CAT), Photo("p1", DOG), Photo("p2", BOTH)),
    Photo("p3", CAT, split="val"),
]
ODD = [
    *MIXED,
    *(Photo("empty", ()), Photo("nothing", (), split="val")),
    *SPOTS,
    Photo("rare", ("cow",), split="val"),
]
HUNDREDS = tuple(f"class {n}" for n in range(200))
NAMES = ("traffic light", "кошка", "犬", "naïve, café", "<b>&\"'")
CASES = {
    "one image": Case(
        [Photo("only")],
        CAT,
        said="no image is in split `val`, so there is nothing to predict; set dataset.val",
        check=tables_of_no_image_have_a_header,
    ),
    "all-background and 1x1 images, and a class in val alone": Case(
        ODD, (*BOTH, "cow"), check=untagged_images_are_background
    ),
    "all-foreground images": Case(
        [
            Photo("full", cover=1.0),
            Photo("whole", DOG, cover=1.0),
            Photo("val", cover=1.0, split="val"),
        ]
    ),
    "1x1 images alone": Case(
        SPOTS,
        CAT,
        said="data/seeds.h5: no image has confident pixels of two labels, so IRNet learns no class",
    ),
    "Mask R-CNN of 1x1 images": Case(SPOTS, CAT, values={"instance.method": "maskrcnn"}),
    "20000x20 images": Case(
        [Photo("wide", size=(20, 20000)), Photo("tall", size=(20000, 20), split="val")],
        values={"instance.resize": [416, 640], "predictions.crf.iterations": 0},
    ),
    "a tag whose object is invisible": Case(
        [
            Photo("a", BOTH, shown=CAT),
            Photo("b", BOTH, shown=CAT, split="val"),
        ],
        check=the_invisible_scores_nothing,
    ),
    "frozen features": Case(
        ODD,
        (*BOTH, "cow"),
        values={"classifier.method": "frozen", "walk.affinity": "features"},
    ),
    "transformers": Case(MIXED, values={f"{stage}.backbone.name": "test_vit" for stage in TRAINED}),
    "200 classes": Case(
        [
            Photo(f"p{n}", HUNDREDS[n * 20 : n * 20 + 20], split="val" if n % 5 == 4 else "train")
            for n in range(10)
        ],
        HUNDREDS,
    ),
    "names with spaces, signs and non-Latin letters": Case(
        [
            *(Photo(f"фото/é & {number}", (name,)) for number, name in enumerate(NAMES)),
            Photo("犬 <i>", NAMES, split="val"),
        ],
        NAMES,
    ),
}


def run_case(
    case: Case,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: Mapping[str, object] | None = None,
    last: str = "report",
) -> None:
    """Write the source of a case and run the stages up to `last` on it, with further parameters."""
    write_source(folder / "source", case.photos, case.classes)
    run_graph(folder, {**case.values, **(values or {})}, monkeypatch, last)


@pytest.mark.parametrize("name", CASES)
def test_graph_runs_to_the_end(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = CASES[name]
    run_case(case, tmp_path, monkeypatch)
    assert case.said in caplog.text + capsys.readouterr().out
    empty = ("fields",) if case.values.get("walk.affinity") == "features" else ()
    check_artifacts(tmp_path / "data", case.photos, case.classes, empty=empty)
    scores = check_scores(tmp_path / "data")
    unscored = {step for step, own in scores.items() if "miou" not in own}
    assert unscored == (set() if any(p.split == "val" for p in case.photos) else {"predictions"})
    page = check_report(tmp_path / "data")
    assert all(str(escape(name)) in page for name in case.classes)
    assert "<b>&" not in page
    assert "<i>" not in page
    case.check(tmp_path)


@pytest.mark.parametrize("name", ["1x1 images alone", "200 classes"])
@pytest.mark.parametrize("method", ["seenet", "puzzlecam", "s2c", "frozen"])
def test_every_classifier_maps_the_tags(
    method: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    values = {"classifier.method": method, "classifier.s2c.warmup": 0}
    run_case(case, tmp_path, monkeypatch, values, "cams")
    check_artifacts(tmp_path / "data", case.photos, case.classes, "cams")


def test_no_instance_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_case(Case(MIXED), tmp_path, monkeypatch, {"instance.method": "none"})
    scores = check_scores(tmp_path / "data")["predictions"]
    assert "miou" in scores
    assert "AP50" not in scores
    check_report(tmp_path / "data")
    described = CliRunner().invoke(main, ["inspect", "data/instance.safetensors"])
    assert "instance none" in described.output


def test_images_without_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user brings them: nothing to score by, everything else there."""
    write_source(tmp_path / "source", MIXED, (*CAT, *DOG))
    shutil.rmtree(tmp_path / "source/masks")
    run_graph(tmp_path, {}, monkeypatch)
    check_artifacts(tmp_path / "data", MIXED, (*CAT, *DOG))
    assert not any(check_scores(tmp_path / "data").values())
    assert "data:image" in check_report(tmp_path / "data")
    for command, code, says in (
        ("inspect data/scores", 0, "none, as no image has a ground-truth mask"),
        ("scores", 1, "no image has a ground-truth mask"),
        ("inspect data/scores p00", 1, "it scores no image: none of its split has a ground-truth"),
        ("report-diff data/report", 0, "wrote data/report-diff.html"),
    ):
        result = CliRunner().invoke(main, command.split())
        assert (result.exit_code, says in result.output) == (code, True), result.output
