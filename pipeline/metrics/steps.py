"""Scores of the pipeline's steps, each compared with the ground truth of the same images.

| step | mIoU of | and |
|---|---|---|
| cams | the maps at one fixed threshold | the best threshold, the curve over all thresholds |
| seeds | the confident pixels | coverage, the share of pixels that are confident |
| walk | the class maps before the threshold, at one fixed threshold | likewise |
| labels, predictions | the label maps | AP of the instances; failures by kind and place |

`evaluate` adds the records of a step one by one to its scores and returns Tables: a few numbers
that DVC compares between runs, and everything else as tables.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pipeline.core.artifacts import IGNORE, Record
from pipeline.data.instance_masks import exclusive_record, masks_of
from pipeline.labelling import assign, upsample
from pipeline.labelling.pseudo_labels import Normalize, class_maps
from pipeline.metrics.failures import KINDS, ImageFailures, find_failures, totals
from pipeline.metrics.instance import InstanceScores
from pipeline.metrics.semantic import (
    Confusion,
    ThresholdCurve,
    image_row,
    miou_interval,
    ratio,
    threshold_grid,
)
from pipeline.metrics.truth import Truth

Row = dict[str, Any]

COLUMNS: Mapping[str, Sequence[str]] = {
    "summary": ("score", "value"),
    "images": ("id", "miou", "foreground_iou"),
    "classes": ("class", "iou", "precision", "recall", "image_precision", "image_recall"),
    "confusion": ("actual", "predicted", "pixels"),
    "curve": ("threshold", "miou"),
    "failures": ("id", *KINDS),
    "failure_kinds": ("kind", "count", "images", "out_of"),
    "failure_places": ("id", "kind", "class", "pixels", "top", "left", "bottom", "right"),
}
"""Tables and their columns; which of them exist depends on the step."""

OWN: Mapping[tuple[str, str], Sequence[str]] = {
    ("seeds", "images"): ("coverage",),
    ("seeds", "classes"): ("coverage",),
    ("labels", "classes"): ("AP50",),
    ("predictions", "classes"): ("AP50",),
}
"""Additional columns of one step's table."""

METRICS = ("best_miou", "miou", "miou_low", "miou_high", "coverage", "AP50")
"""The scores that `dvc metrics show` and `dvc exp show` list in percent, each as STEP.SCORE; all
others are in table `summary`, as ratios.
"""


@dataclass(frozen=True, slots=True)
class Tables:
    """Scores of the artifact `step`: numbers by name (ratios in 0..1, counts), and tables as rows
    by column name.
    """

    step: str
    scores: Row
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def json(self) -> str:
        """Return the few scores by which runs are compared, in percent to 3 digits, as JSON text.

        They are nested under the step's name, so that DVC's columns need no file names.
        """
        few = {
            name: round(100 * self.scores[name], 3)
            for name in METRICS
            if self.scores.get(name) is not None
        }
        return json.dumps({self.step: few}, indent=1, ensure_ascii=False) + "\n"

    def csv(self) -> dict[str, str]:
        """Return all scores as table `summary`, and every other table, as CSV text; tables without
        rows have their header.
        """
        summary = [{"score": name, "value": value} for name, value in self.scores.items()]
        rows = {"summary": summary, **self.rows}
        return {
            name: _csv((*COLUMNS[name], *OWN.get((self.step, name), ())), table)
            for name, table in rows.items()
        }


class Comparison(NamedTuple):
    """An image to compare: ground truth (255 where ignored) and prediction, uint8 [H,W], and extra
    columns of its row.
    """

    truth: np.ndarray
    prediction: np.ndarray
    row: Row


@dataclass(slots=True)
class ExtraScores:
    """What is scored besides the confusion matrix: numbers by name, columns by class name
    (`background` too), and tables.
    """

    scores: Row = field(default_factory=dict)
    classes: dict[str, Row] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Options:
    """How a step is scored.

    threshold: at which maps are scored besides their best threshold; normalize: as in stage labels;
    instances: whether there is an instance model, which then has an AP even if it finds nothing.
    """

    threshold: float = 0.0
    normalize: Normalize = "class"
    instances: bool = True


def evaluate(
    truth: Truth,
    step: str,
    records: Iterable[tuple[str, Record]],
    options: Options,
) -> Tables:
    """Score images of one step; memory grows with their number only for an interval.

    Args:
        truth: the ground truth of all images.
        step: a key of STEPS.
        records: image ids and records of the step's artifact.
        options: how it is scored.

    Returns:
        The scores; without images tables without rows, and no scores.
    """
    scored_step, confusion = STEPS[step](truth, options), Confusion(truth.classes)
    images, counts = list[Row](), list[np.ndarray]()
    for name, record in records:
        true, prediction, row = scored_step.add(name, truth.semantic(name), record)
        own = confusion.add(true, prediction)
        images.append({**image_row(name, own), **row})
        if truth.interval:
            counts.append(own)
    scores, extra = confusion.scores(), scored_step.finish()
    if counts:
        scores["miou_low"], scores["miou_high"] = miou_interval(np.stack(counts))
    per_class = scores.pop("per_class").items()
    classes = [
        {"class": name, **values, **extra.classes.get(name, {})} for name, values in per_class
    ]
    tables = {"images": images, "classes": classes, "confusion": _confusion_rows(confusion)}
    known = {**extra.scores, **scores} if images else {}
    return Tables(step, {"images": len(images), **known}, {**tables, **extra.tables})


class CamScores:
    """Class maps, compared at every threshold."""

    def __init__(self, truth: Truth, options: Options) -> None:
        self.threshold, self.normalize = options.threshold, options.normalize
        self.curve = ThresholdCurve(truth.classes, threshold_grid(self.threshold))

    def add(self, name: str, truth: np.ndarray, record: Record) -> Comparison:
        """Compare the maps at the fixed threshold."""
        maps, classes = self.maps(record, truth.shape)
        self.curve.add(truth, maps, classes)
        return Comparison(truth, assign(maps, classes, self.threshold), {})

    def maps(self, record: Record, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the maps [K,H,W] in [0,1] of an image and their class ids [K]."""
        return upsample(record["cams"], size), record["labels"]

    def finish(self) -> ExtraScores:
        """Return the best threshold for the whole set, the mIoU there, and the curve."""
        if not self.curve.histogram.any():
            return ExtraScores(tables={"curve": []})
        threshold, best = self.curve.best()
        scores = {"best_miou": best, "best_threshold": threshold, "threshold": self.threshold}
        return ExtraScores(scores, tables={"curve": self.curve.curve()})


class WalkScores(CamScores):
    """The walk's maps as stage labels thresholds them: summed by class and normalized."""

    def maps(self, record: Record, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the maps [K,H,W] in [0,1] of an image and their class ids [K]."""
        return class_maps(record, self.normalize)


class SeedScores:
    """Seeds, compared where they are confident. Coverage is the share of known pixels that are
    confident, for a class of its true pixels.
    """

    def __init__(self, truth: Truth, options: Options) -> None:
        self.names = ("background", *truth.classes)
        self.known, self.confident = np.zeros((2, IGNORE), np.int64)

    def add(self, name: str, truth: np.ndarray, record: Record) -> Comparison:
        """Compare the seeds without their ignored pixels."""
        where = np.where(record["seeds"] == IGNORE, np.uint8(IGNORE), truth)
        known, confident = (
            np.bincount(labels.ravel(), minlength=256)[:IGNORE] for labels in (truth, where)
        )
        self.known += known
        self.confident += confident
        coverage = ratio(confident.sum(), known.sum())
        return Comparison(where, record["seeds"], {"coverage": coverage})

    def finish(self) -> ExtraScores:
        """Return the coverage of all pixels, and of those of each class."""
        by_class = zip(self.names, self.confident, self.known, strict=False)
        return ExtraScores(
            {"coverage": ratio(self.confident.sum(), self.known.sum())},
            {name: {"coverage": ratio(confident, known)} for name, confident, known in by_class},
        )


class LabelScores:
    """Label maps with instances: AP where there are instance masks, and failures by kind."""

    def __init__(self, truth: Truth, options: Options) -> None:
        self.truth, self.has_model = truth, options.instances
        self.instances = InstanceScores(truth.classes)
        self.failures: dict[str, ImageFailures] = {}

    def add(self, name: str, truth: np.ndarray, record: Record) -> Comparison:
        """Compare the label map; failures of overlapping instances are those of what is drawn:
        scores of 0.3 and more, the highest in front.
        """
        true = self.truth.instances(name)
        drawn = exclusive_record(record)
        self.failures[name] = find_failures(
            truth, record["semantic"], true, (drawn["instances"], drawn["classes"])
        )
        if true is not None:
            predicted = masks_of(record), record["classes"], record["scores"]
            self.instances.add(name, (*true, truth == IGNORE), predicted)
        return Comparison(truth, record["semantic"], {})

    def finish(self) -> ExtraScores:
        """Return AP, and failures by image, by kind, and each with its place."""
        scores = self.instances.compute()
        average: Row = scores if scores["instances"] and self.has_model else {}
        per_class = average.pop("per_class", {})
        return ExtraScores(
            average,
            {name: {"AP50": values["AP50"]} for name, values in per_class.items()},
            self._failure_tables(),
        )

    def _failure_tables(self) -> dict[str, list[Row]]:
        images = self.failures
        if not any(failures.out_of.get("merged") for failures in images.values()):
            # what finds no instance anywhere is not something that never merges or splits them
            for failures in images.values():
                for kind in ("merged", "split"):
                    failures.out_of.pop(kind, None)
        return {
            "failures": [{"id": name, **failures.counts()} for name, failures in images.items()],
            "failure_kinds": [{"kind": kind, **row} for kind, row in totals(images).items()],
            "failure_places": [
                {"id": name, "class": self.truth.classes[failure.label], **failure.row()}
                for name, failures in images.items()
                for failure in failures.failures
            ],
        }


STEPS: Mapping[str, Callable[[Truth, Options], CamScores | SeedScores | LabelScores]] = {
    "cams": CamScores,
    "seeds": SeedScores,
    "walk": WalkScores,
    "labels": LabelScores,
    "predictions": LabelScores,
}
"""Scored steps in the order of the pipeline, made of ground truth and of how they are scored."""


def _confusion_rows(confusion: Confusion) -> list[Row]:
    """Return one row per pair of labels, the form in which DVC draws confusion matrices."""
    labels = ("background", *confusion.classes)
    return [
        {"actual": actual, "predicted": predicted, "pixels": int(confusion.counts[a, p])}
        for a, actual in enumerate(labels)
        for p, predicted in enumerate(labels)
    ]


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    )
    return out.getvalue()
