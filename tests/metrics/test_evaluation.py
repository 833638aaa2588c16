"""Scores of artefacts against the truth of three drawn scenes: perfect, wrong, absent; and tables that say the same each time."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.build import build
from pipeline.datasets.index import Index
from pipeline.datasets.masks import read_instances, read_semantic
from pipeline.instances.masks import masks_of, pack
from pipeline.metrics.evaluation import COLUMNS, Tables, evaluate
from pipeline.metrics.semantic import Confusion, assign
from pipeline.seeds import enlarge
from pipeline.store import Reader, Record, Writer


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return build("scenes", Path("unused"), tmp_path_factory.mktemp("scenes"), pictures=3, seed=3)


@pytest.fixture
def stored(index: Index, tmp_path: Path) -> Callable[[str, Callable[[str], Record]], Reader]:
    """Write an artefact of all pictures and open it."""

    def store(format_: str, record: Callable[[str], Record]) -> Reader:
        with Writer(tmp_path / f"{format_}.h5", format_, index.classes) as writer:
            for name in index:
                writer.write(name, record(name))
        return Reader(tmp_path / f"{format_}.h5", format_)

    return store


def truth_labels(index: Index, name: str) -> Record:
    ids, classes = read_instances(index, name)
    scores = np.full(len(classes), 0.9, np.float32)
    return {
        "semantic": read_semantic(index, name),
        "instances": ids,
        "classes": classes.astype("u1"),
        "scores": scores,
    }


def truth_predictions(index: Index, name: str) -> Record:
    """The same in the layout of predictions."""
    record = truth_labels(index, name)
    return {**record, "instances": pack(masks_of(record))}


def truth_cams(index: Index, name: str, low: float = 0.0, high: float = 1.0) -> Record:
    """Class maps: `high` in a cell whose middle pixel shows the class, else `low`."""
    truth = read_semantic(index, name)
    height, width = truth.shape
    rows, columns = (np.minimum(np.arange(0, side, 4) + 2, side - 1) for side in (height, width))
    cells = truth[np.ix_(rows, columns)]
    tags = index[name].tags
    cams = np.stack([np.where(cells == tag + 1, high, low) for tag in tags])
    return {"cams": cams, "labels": np.array(tags, "u1"), "size": np.array([height, width], "i4")}


MAKERS: dict[str, Callable[[Index, str], Record]] = {
    "cams": truth_cams,
    "labels": truth_labels,
    "predictions": truth_predictions,
}


def rows(tables: Tables, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(tables.csv()[name])))


@pytest.mark.parametrize("format_", ["labels", "predictions"])
def test_the_truth_scores_one(index: Index, stored: Callable[..., Reader], format_: str) -> None:
    reader = stored(format_, lambda n: MAKERS[format_](index, n))
    tables = evaluate(index, reader, list(index), background=0.15)
    scores = json.loads(tables.json())
    assert scores["pictures"] == 3
    assert scores["miou"] == scores["pixel_accuracy"] == scores["precision"] == scores["recall"] == 1
    present = {tag for picture in index.values() for tag in picture.tags}
    for number, name in enumerate(index.classes):
        assert scores["iou"][name] == (1 if number in present else None)
    assert scores["instance"]["AP50"] == scores["instance"]["AP75"] == scores["instance"]["voc_AP70"] == 1
    assert set(scores["instance"]["AP50_per_class"]) <= set(index.classes)
    assert [row["id"] for row in rows(tables, "pictures")] == list(index)
    assert all(float(row["miou"]) == float(row["foreground_iou"]) == 1 for row in rows(tables, "pictures"))


def test_background_everywhere_finds_nothing(index: Index, stored: Callable[..., Reader]) -> None:
    def empty(name: str) -> Record:
        zeros = np.zeros_like(read_semantic(index, name))
        return {
            "semantic": zeros,
            "instances": zeros,
            "classes": np.zeros(0, "u1"),
            "scores": np.zeros(0, "f4"),
        }

    scores = evaluate(index, stored("labels", empty), list(index), background=0.15).scores
    assert scores["instance"]["AP50"] == 0
    assert all(scores["iou"][name] in (0, None) for name in index.classes)
    assert 0 < scores["iou"]["background"] < 1


def test_numbers_are_those_of_one_confusion(index: Index, stored: Callable[..., Reader]) -> None:
    rng = np.random.default_rng(0)
    wrong = {
        n: np.where(rng.random(read_semantic(index, n).shape) < 0.3, 1, read_semantic(index, n))
        for n in index
    }
    reader = stored("labels", lambda n: {**truth_labels(index, n), "semantic": wrong[n].astype("u1")})
    tables = evaluate(index, reader, list(index), background=0.15)
    confusion = Confusion(index.classes)
    for name in index:
        confusion.add(read_semantic(index, name), wrong[name].astype("u1"))
    assert tables.scores["miou"] == pytest.approx(confusion.miou)
    table = np.array([int(row["pixels"]) for row in rows(tables, "confusion")])
    assert (table.reshape(confusion.counts.shape) == confusion.counts).all()
    assert [row["class"] for row in rows(tables, "classes")] == ["background", *index.classes]


def test_cams_are_scored_at_the_best_and_at_the_fixed_threshold(
    index: Index, stored: Callable[..., Reader]
) -> None:
    """Maps of 0.4 on 0.2: the best thresholds lie between, the fixed one below makes all of it foreground."""
    reader = stored("cams", lambda n: truth_cams(index, n, 0.2, 0.4))
    tables = evaluate(index, reader, list(index), background=0.15)
    scores = tables.scores
    assert 0.2 < scores["best_threshold"] < 0.4
    assert scores["best_miou"] > 0.8
    assert scores["miou"] < 0.4
    curve = {float(row["threshold"]): float(row["miou"]) for row in rows(tables, "curve")}
    assert curve[0.15] == pytest.approx(scores["miou"], abs=1e-5)
    assert max(curve.values()) == pytest.approx(scores["best_miou"], abs=1e-5)
    assert len(curve) == 99
    confusion = Confusion(index.classes)
    for name in index:
        truth, record = read_semantic(index, name), reader[name]
        full = enlarge(record["cams"], truth.shape)  # type: ignore[arg-type]
        confusion.add(truth, assign(full, record["labels"], 0.15))
    assert scores["miou"] == pytest.approx(confusion.miou)


@pytest.mark.parametrize("format_", ["cams", "labels", "predictions"])
def test_without_masks_there_are_headers_and_no_scores(
    index: Index, stored: Callable[..., Reader], format_: str
) -> None:
    tables = evaluate(index, stored(format_, lambda n: MAKERS[format_](index, n)), [], background=0.15)
    assert json.loads(tables.json()) == {"pictures": 0}
    wanted = {"pictures", "classes", "confusion"} | ({"curve"} if format_ == "cams" else set())
    assert set(tables.csv()) == wanted
    for name, text in tables.csv().items():
        assert text.splitlines()[0].split(",") == list(COLUMNS[name])
    assert rows(tables, "pictures") == []
    assert all(not row["iou"] for row in rows(tables, "classes"))
    assert all(row["pixels"] == "0" for row in rows(tables, "confusion"))


def test_pictures_without_instance_masks_are_scored_as_masks_alone(
    index: Index, stored: Callable[..., Reader]
) -> None:
    reader = stored("labels", lambda n: truth_labels(index, n))
    bare = Index(
        index.classes,
        [replace(picture, instances=None) for picture in index.values()],
        index.pictures_root,
        index.masks_root,
        index.mask_values,
    )
    scores = evaluate(bare, reader, list(bare), background=0.15).scores
    assert scores["miou"] == 1
    assert "instance" not in scores


@pytest.mark.parametrize("format_", ["cams", "labels"])
def test_equal_artefacts_give_equal_texts(index: Index, stored: Callable[..., Reader], format_: str) -> None:
    reader = stored(format_, lambda n: MAKERS[format_](index, n))
    first, second = (evaluate(index, reader, list(index), background=0.15) for _ in range(2))
    assert (first.json(), first.csv()) == (second.json(), second.csv())
    assert "NaN" not in first.json()
    assert first.json().endswith("}\n")
    for text in first.csv().values():
        assert "\r" not in text
        assert "nan" not in text


def test_fewer_than_twenty_pictures_are_scored(index: Index, stored: Callable[..., Reader]) -> None:
    reader = stored("predictions", lambda n: truth_predictions(index, n))
    for count in (1, 2, 3):
        assert evaluate(index, reader, list(index)[:count], background=0.15).scores["pictures"] == count
