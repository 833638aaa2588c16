"""How each step becomes a label map to compare with the truth, and what else is scored of it.

What is scored of every step: CAMs, seeds, the walk's result, pseudo-labels and predictions.

| step | mIoU of | further |
|---|---|---|
| cams | the maps at one fixed threshold | at the best one; the curve over all thresholds |
| seeds | the pixels that are sure | coverage: the share of pixels that are sure |
| walk | the class maps before the threshold, at one fixed | at the best one; the curve |
| labels, predictions | the label maps | average precision of the instances; failures by kind and
place |

Scores of one artifact as files: a few numbers for DVC, everything else as tables.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipeline.core.artifacts import IGNORE, Record
from pipeline.data.index import Index
from pipeline.data.masks import read_instances, read_semantic
from pipeline.instances.base import exclusive_record, masks_of
from pipeline.labelling.pseudo_labels import Normalize, class_maps
from pipeline.labelling.seeds import upsample
from pipeline.metrics.failures import KINDS, Found, find, totals
from pipeline.metrics.instance import InstanceScores
from pipeline.metrics.semantic import (
    Confusion,
    ThresholdCurve,
    assign,
    image_row,
    ratio,
    threshold_grid,
)

Row = dict[str, Any]


class Comparison(NamedTuple):
    """An image to compare: truth (255 where nothing is to be compared) and prediction, uint8 [H,W],
    and columns of its row.
    """

    truth: np.ndarray
    prediction: np.ndarray
    row: Row


@dataclass(slots=True)
class ExtraScores:
    """What is scored beside the confusion: numbers by name, columns by class name (`background`
    too), and tables.
    """

    scores: Row = field(default_factory=dict)
    classes: dict[str, Row] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)


class ScoredStep(Protocol):
    """Takes the images of a step one by one."""

    def look(self, name: str, truth: np.ndarray, record: Record) -> Comparison:
        """What is compared of an image; truth: uint8 [H,W], 255 void."""
        ...

    def finish(self) -> ExtraScores:
        """What is scored of all images so far; of none, tables without rows alone."""
        ...


class Maps:
    """Class maps, compared at every threshold: CAMs."""

    def __init__(self, index: Index, threshold: float, normalize: Normalize) -> None:
        self.threshold, self.normalize = threshold, normalize
        self.curve = ThresholdCurve(index.classes, threshold_grid(threshold))

    def look(self, name: str, truth: np.ndarray, record: Record) -> Comparison:
        """The maps at the fixed threshold."""
        maps, classes = self.maps(record, truth.shape)
        self.curve.add(truth, maps, classes)
        return Comparison(truth, assign(maps, classes, self.threshold), {})

    def maps(self, record: Record, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the maps [K,H,W] in [0,1] of an image and their class ids [K]."""
        return upsample(record["cams"], size), record["labels"]

    def finish(self) -> ExtraScores:
        """The best threshold for the whole set, the mIoU there, and the curve over all."""
        if not self.curve.histogram.any():
            return ExtraScores(tables={"curve": []})
        threshold, best = self.curve.best()
        scores = {"best_miou": best, "best_threshold": threshold, "threshold": self.threshold}
        return ExtraScores(scores, tables={"curve": self.curve.curve()})


class WalkedMaps(Maps):
    """The walk's maps as stage labels thresholds them: summed by class and normalized."""

    def maps(self, record: Record, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the maps [K,H,W] in [0,1] of an image and their class ids [K]."""
        return class_maps(record, self.normalize)


class Seeds:
    """Seeds, compared where they are sure. Coverage is the share of known pixels that are sure, for
    a class of its true pixels.
    """

    def __init__(self, index: Index, threshold: float, normalize: Normalize) -> None:
        self.names = ("background", *index.classes)
        self.known, self.sure = np.zeros((2, IGNORE), np.int64)

    def look(self, name: str, truth: np.ndarray, record: Record) -> Comparison:
        """The seeds, ignored pixels left out."""
        unsure = np.where(record["seeds"] == IGNORE, np.uint8(IGNORE), truth)
        known, sure = (np.bincount(one.ravel(), minlength=256)[:IGNORE] for one in (truth, unsure))
        self.known += known
        self.sure += sure
        return Comparison(unsure, record["seeds"], {"coverage": ratio(sure.sum(), known.sum())})

    def finish(self) -> ExtraScores:
        """Coverage of all pixels, and of those of each class."""
        by_class = zip(self.names, self.sure, self.known, strict=False)
        return ExtraScores(
            {"coverage": ratio(self.sure.sum(), self.known.sum())},
            {name: {"coverage": ratio(sure, known)} for name, sure, known in by_class},
        )


class Labels:
    """Label maps with instances: average precision where there are instance masks, and failures by
    kind.
    """

    def __init__(self, index: Index, threshold: float, normalize: Normalize) -> None:
        self.index = index
        self.instances = InstanceScores(index.classes)
        self.found: dict[str, Found] = {}

    def look(self, name: str, truth: np.ndarray, record: Record) -> Comparison:
        """The label map; of instances that overlap, failures are those of what is drawn: score 0.3
        and more, the surest in front.
        """
        true = read_instances(self.index, name) if self.index.has_instances(name) else None
        shown = exclusive_record(record)
        self.found[name] = find(
            truth, record["semantic"], true, (shown["instances"], shown["classes"])
        )
        if true is not None:
            predicted = masks_of(record), record["classes"], record["scores"]
            self.instances.add(name, (*true, truth == IGNORE), predicted)
        return Comparison(truth, record["semantic"], {})

    def finish(self) -> ExtraScores:
        """Average precision; failures by image, by kind, and each with its place."""
        average = self._average_precision()
        per_class = average.pop("per_class", {})
        return ExtraScores(
            average,
            {name: {"AP50": values["AP50"]} for name, values in per_class.items()},
            self._failures(),
        )

    def _average_precision(self) -> dict[str, Any]:
        found = self.instances.compute()
        return found if found["instances"] else {}

    def _failures(self) -> dict[str, list[Row]]:
        if not any(found.out_of.get("merged") for found in self.found.values()):
            for found in (
                self.found.values()
            ):  # no instance anywhere is no instance model, not one that never fails
                found.out_of = {
                    kind: n for kind, n in found.out_of.items() if kind not in ("merged", "split")
                }
        return {
            "failures": [{"id": name, **found.counts()} for name, found in self.found.items()],
            "failure_kinds": [{"kind": kind, **row} for kind, row in totals(self.found).items()],
            "failure_places": [
                {"id": name, "class": self.index.classes[failure.label], **failure.row()}
                for name, found in self.found.items()
                for failure in found.failures
            ],
        }


class Predictions(Labels):
    """What final models predict; where nothing was detected there is no instance model, and so no
    average precision.
    """

    def _average_precision(self) -> dict[str, Any]:
        found = super()._average_precision()
        return found if found.get("detections") else {}


STEPS: Mapping[str, Callable[[Index, float, Normalize], ScoredStep]] = {
    "cams": Maps,
    "seeds": Seeds,
    "walk": WalkedMaps,
    "labels": Labels,
    "predictions": Predictions,
}
"""What can be scored, in the order of the pipeline; each is made of the index, the threshold of
maps, and how walked maps are normalized.
"""


COLUMNS: Mapping[str, Sequence[str]] = {
    "summary": ("score", "value"),
    "images": ("id", "miou", "foreground_iou"),
    "classes": ("class", "iou", "precision", "recall"),
    "confusion": ("actual", "predicted", "pixels"),
    "curve": ("threshold", "miou"),
    "failures": ("id", *KINDS),
    "failure_kinds": ("kind", "count", "images", "out_of"),
    "failure_places": ("id", "kind", "class", "pixels", "top", "left", "bottom", "right"),
}
"""Tables and their columns; which of them there are depends on what is scored."""

OWN: Mapping[tuple[str, str], Sequence[str]] = {
    ("seeds", "images"): ("coverage",),
    ("seeds", "classes"): ("coverage",),
    ("labels", "classes"): ("AP50",),
    ("predictions", "classes"): ("AP50",),
}
"""Further columns of one step's table."""

METRICS = ("best_miou", "miou", "coverage", "AP50")
"""The scores that `dvc metrics show` and `dvc exp show` list, each as STEP.SCORE; the others are in
table `summary`.
"""


@dataclass(frozen=True, slots=True)
class Tables:
    """Scores of the artifact `step`: numbers by name (ratios in 0..1, counts), and tables as rows
    by column name.
    """

    step: str
    scores: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def json(self) -> str:
        """The few scores that runs are compared by, under the step's name and rounded to 5 digits,
        as JSON text.

        The name makes every key differ from those of the other steps, so that DVC's columns need no
        file names.
        """
        few = {
            name: _rounded(self.scores[name])
            for name in METRICS
            if self.scores.get(name) is not None
        }
        return json.dumps({self.step: few}, indent=1, ensure_ascii=False) + "\n"

    def csv(self) -> dict[str, str]:
        """All scores as table `summary`, and every other table, as csv text; those without rows
        have their header.
        """
        summary = [{"score": name, "value": value} for name, value in self.scores.items()]
        rows = {"summary": summary, **self.rows}
        return {
            name: _csv((*COLUMNS[name], *OWN.get((self.step, name), ())), table)
            for name, table in rows.items()
        }


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _rounded(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _rounded(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


def evaluate(
    index: Index,
    step: str,
    records: Iterable[tuple[str, Record]],
    *,
    threshold: float,
    normalize: Normalize = "class",
) -> Tables:
    """Score the images of one step, all of which have masks; memory does not grow with their size.

    step: a key of steps.STEPS; records: image id and record of the step's artifact; threshold:
    where maps are scored besides their best threshold; normalize: as in stage labels. Without
    images there are tables without rows, and no scores.
    """
    scored_step, confusion = STEPS[step](index, threshold, normalize), Confusion(index.classes)
    images: list[dict[str, Any]] = []
    for name, record in records:
        truth, prediction, own = scored_step.look(name, read_semantic(index, name), record)
        images.append({**image_row(name, confusion.add(truth, prediction)), **own})
    whole, beside = confusion.scores(), scored_step.finish()
    per_class = whole.pop("per_class").items()
    classes = [
        {"class": name, **values, **beside.classes.get(name, {})} for name, values in per_class
    ]
    tables = {"images": images, "classes": classes, "confusion": _confusion_rows(confusion)}
    scores = {**beside.scores, **whole} if images else {}
    return Tables(step, {"images": len(images), **scores}, {**tables, **beside.tables})


def _confusion_rows(confusion: Confusion) -> list[dict[str, Any]]:
    """One row a pair of labels, the form in which DVC draws confusion matrices."""
    labels = ("background", *confusion.classes)
    return [
        {"actual": actual, "predicted": predicted, "pixels": int(confusion.counts[a, p])}
        for a, actual in enumerate(labels)
        for p, predicted in enumerate(labels)
    ]
