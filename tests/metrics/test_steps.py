"""Scores of artifacts against the truth of three drawn scenes: perfect, wrong, absent; and tables
that say the same each time.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.artifacts import Record
from pipeline.data.index import Index
from pipeline.data.instance_masks import masks_of, pack
from pipeline.data.masks import read_instances, read_semantic
from pipeline.labelling import assign, upsample
from pipeline.labelling.pseudo_labels import Normalize, pseudo_labels
from pipeline.metrics.semantic import Confusion
from pipeline.metrics.steps import COLUMNS, OWN, STEPS, Options, Tables, evaluate
from pipeline.metrics.truth import Truth
from pipeline.readers.build import build


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return build("scenes", Path("unused"), tmp_path_factory.mktemp("scenes"), images=3, seed=3)


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


def walk_of(index: Index, name: str) -> Record:
    """Return the ground-truth CAMs with noise as a record of walk.h5."""
    record = truth_cams(index, name, 0.2, 0.4)
    maps = record["cams"] + 0.3 * np.random.default_rng(0).random(record["cams"].shape)
    return {
        "maps": maps.astype("f2"),
        "background": 1 - maps.max(0),
        "classes": record["labels"],
        "size": record["size"],
    }


def truth_seeds(index: Index, name: str) -> Record:
    return {"seeds": read_semantic(index, name)}


KINDS_OF_LABELS = ["missed", "wrong_class", "bleeding", "background_taken"]
MAKERS: dict[str, Callable[[Index, str], Record]] = {
    "cams": truth_cams,
    "seeds": truth_seeds,
    "labels": truth_labels,
    "predictions": truth_predictions,
    "walk": walk_of,
}


def score(
    index: Index,
    step: str,
    record: Callable[[str], Record],
    names: Sequence[str] | None = None,
    **options: Any,
) -> Tables:
    """Score the records of images, all of them by default."""
    records = ((name, record(name)) for name in (index if names is None else names))
    return evaluate(Truth(index), step, records, Options(**{"threshold": 0.15, **options}))


def rows(tables: Tables, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(tables.csv()[name])))


@pytest.mark.defect("irn-4", "puzzlecam-2")  # which need twenty images
@pytest.mark.parametrize("format_", ["labels", "predictions"])
def test_truth_scores_one(index: Index, format_: str) -> None:
    tables = score(index, format_, partial(MAKERS[format_], index))
    scores = tables.scores
    assert json.loads(tables.json()) == {format_: {"miou": 100, "AP50": 100}}
    assert scores["images"] == 3
    assert (
        scores["miou"] == scores["pixel_accuracy"] == scores["precision"] == scores["recall"] == 1
    )
    present = {tag for image in index.values() for tag in image.tags}
    background, *classes = rows(tables, "classes")
    assert (background["class"], background["iou"], background["AP50"]) == ("background", "1.0", "")
    for number, row in enumerate(classes):
        assert row["iou"] == row["AP50"] == ("1.0" if number in present else "")
    assert scores["AP50"] == scores["AP75"] == scores["voc_AP70"] == 1
    assert all(row["count"] == "0" for row in rows(tables, "failure_kinds"))
    assert rows(tables, "failure_places") == []
    assert [row["id"] for row in rows(tables, "images")] == list(index)
    assert all(
        float(row["miou"]) == float(row["foreground_iou"]) == 1 for row in rows(tables, "images")
    )


def test_background_everywhere_finds_nothing(index: Index) -> None:
    def empty(name: str) -> Record:
        zeros = np.zeros_like(read_semantic(index, name))
        return {
            "semantic": zeros,
            "instances": zeros,
            "classes": np.zeros(0, "u1"),
            "scores": np.zeros(0, "f4"),
        }

    tables = score(index, "labels", empty)
    assert tables.scores["AP50"] == 0
    background, *classes = rows(tables, "classes")
    assert all(row["iou"] in ("0.0", "") for row in classes)
    assert 0 < float(background["iou"]) < 1
    objects = sum(len(read_instances(index, name)[1]) for name in index)
    missed, *others = rows(tables, "failure_kinds")
    assert missed == {
        "kind": "missed",
        "count": str(objects),
        "images": "3",
        "out_of": str(objects),
    }
    assert [row["kind"] for row in others] == KINDS_OF_LABELS[1:], "no instances"
    places = rows(tables, "failure_places")
    assert [row["id"] for row in places] == sorted(row["id"] for row in places)
    assert len(places) == objects
    assert sum(int(row["missed"]) for row in rows(tables, "failures")) == objects
    assert all(row["merged"] == row["split"] == "" for row in rows(tables, "failures"))


def test_numbers_are_those_of_one_confusion(index: Index) -> None:
    rng = np.random.default_rng(0)
    wrong = {
        n: np.where(rng.random(read_semantic(index, n).shape) < 0.3, 1, read_semantic(index, n))
        for n in index
    }
    tables = score(
        index, "labels", lambda n: {**truth_labels(index, n), "semantic": wrong[n].astype("u1")}
    )
    confusion = Confusion(index.classes)
    for name in index:
        confusion.add(read_semantic(index, name), wrong[name].astype("u1"))
    assert tables.scores["miou"] == pytest.approx(confusion.miou)
    table = np.array([int(row["pixels"]) for row in rows(tables, "confusion")])
    assert (table.reshape(confusion.counts.shape) == confusion.counts).all()
    assert [row["class"] for row in rows(tables, "classes")] == ["background", *index.classes]


def test_cams_are_scored_at_the_best_and_at_the_fixed_threshold(index: Index) -> None:
    """Maps of 0.4 on 0.2: the best thresholds lie between, the fixed one below makes all of it
    foreground.
    """
    records = {name: truth_cams(index, name, 0.2, 0.4) for name in index}
    tables = score(index, "cams", records.__getitem__)
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
        truth, record = read_semantic(index, name), records[name]
        full = upsample(record["cams"], truth.shape)
        confusion.add(truth, assign(full, record["labels"], 0.15))
    assert scores["miou"] == pytest.approx(confusion.miou)


def test_seeds_are_scored_where_they_are_sure(index: Index) -> None:
    """The left half is sure and right but for one class, which is called background."""

    def half(name: str) -> Record:
        seeds = read_semantic(index, name).copy()
        seeds[seeds == wrong] = 0
        seeds[:, seeds.shape[1] // 2 :] = 255
        return {"seeds": seeds}

    truth = read_semantic(index, next(iter(index)))
    wrong = int(truth[:, : truth.shape[1] // 2].max())
    tables = score(index, "seeds", half)
    known = np.concatenate([read_semantic(index, name).ravel() for name in index])
    sure = [read_semantic(index, n)[:, : index[n].width // 2].ravel() for n in index]
    lost = np.concatenate([part == wrong for part in sure])
    assert tables.scores["coverage"] == pytest.approx(len(lost) / len(known))
    assert tables.scores["pixel_accuracy"] == pytest.approx(1 - lost.mean())
    assert set(json.loads(tables.json())["seeds"]) == {"miou", "coverage"}
    classes = {row["class"]: row for row in rows(tables, "classes")}
    assert float(classes[index.classes[wrong - 1]]["iou"]) == 0
    covered = float(classes[index.classes[wrong - 1]]["coverage"])
    assert covered == pytest.approx(lost.sum() / (known == wrong).sum(), abs=1e-5)
    assert all(
        float(row["coverage"]) == pytest.approx(0.5, abs=0.01) for row in rows(tables, "images")
    )


@pytest.mark.parametrize("normalize", ["background", "class", "image"])
def test_walk_is_scored_as_stage_labels_thresholds_it(index: Index, normalize: Normalize) -> None:
    """The curve at labels.background is the mIoU of the labels."""
    confusion = Confusion(index.classes)
    for name in index:
        record = walk_of(index, name)
        labels = pseudo_labels(
            record,
            np.zeros(record["maps"].shape[1:]),
            background=0.55,
            normalize=normalize,
            min_area=0.01,
            boundary_threshold=1.0,
        )
        confusion.add(read_semantic(index, name), labels["semantic"])
    tables = score(index, "walk", partial(walk_of, index), threshold=0.55, normalize=normalize)
    assert 0.1 < confusion.miou < 1
    assert tables.scores["miou"] == confusion.miou
    curve = {row["threshold"]: row["miou"] for row in tables.rows["curve"]}
    assert curve[0.55] == confusion.miou
    assert tables.scores["best_miou"] == max(curve.values())
    assert tables.scores["best_threshold"] == max(curve, key=lambda key: curve[key])
    assert set(json.loads(tables.json())["walk"]) == {"best_miou", "miou"}


def test_what_dvc_lists_has_other_names_for_every_step() -> None:
    """So that its tables need no file names."""
    listed = [json.loads(Tables(step, {"miou": 0.123456, "AP": 1.0}).json()) for step in STEPS]
    assert listed == [{step: {"miou": 12.346}} for step in STEPS]


@pytest.mark.parametrize("format_", [*STEPS])
def test_without_masks_there_are_headers_and_no_scores(index: Index, format_: str) -> None:
    tables = score(index, format_, partial(MAKERS[format_], index), [])
    assert json.loads(tables.json()) == {format_: {}}
    assert tables.scores == {"images": 0}
    failures = {"failures", "failure_kinds", "failure_places"}
    own = {"cams": {"curve"}, "walk": {"curve"}, "seeds": set[str]()}.get(format_, failures)
    assert set(tables.csv()) == {"summary", "images", "classes", "confusion"} | own
    for name, text in tables.csv().items():
        assert text.splitlines()[0].split(",") == [*COLUMNS[name], *OWN.get((format_, name), ())]
    assert rows(tables, "images") == []
    assert all(not row["iou"] for row in rows(tables, "classes"))
    assert all(row["pixels"] == "0" for row in rows(tables, "confusion"))


def test_images_without_instance_masks_are_scored_as_masks_alone(index: Index) -> None:
    bare = Index(
        index.classes,
        [replace(image, instances=None) for image in index.values()],
        index.images_root,
        index.masks_root,
        index.mask_values,
    )
    tables = score(bare, "labels", partial(truth_labels, index))
    assert tables.scores["miou"] == 1
    assert "AP50" not in tables.scores
    assert [row["kind"] for row in rows(tables, "failure_kinds")] == KINDS_OF_LABELS


@pytest.mark.parametrize("has_model", [True, False])
def test_a_model_that_finds_nothing_has_an_ap_of_zero(index: Index, has_model: bool) -> None:
    def nothing_found(name: str) -> Record:
        record = truth_predictions(index, name)
        return {**record, **{key: record[key][:0] for key in ("instances", "classes", "scores")}}

    tables = score(index, "predictions", nothing_found, instances=has_model)
    assert tables.scores.get("AP50") == (0 if has_model else None)
