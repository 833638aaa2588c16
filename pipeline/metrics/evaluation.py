"""What is scored of each artefact: CAMs over all thresholds, pseudo-labels as masks and as instances, predictions as masks."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.datasets.index import Index
from pipeline.datasets.masks import read_instances, read_semantic
from pipeline.instances.masks import masks_of
from pipeline.label_map import IGNORE
from pipeline.metrics.instance import InstanceScores
from pipeline.metrics.semantic import Confusion, ThresholdCurve, assign, picture_row, threshold_grid
from pipeline.seeds import enlarge
from pipeline.store import Reader, Record

COLUMNS: Mapping[str, Sequence[str]] = {
    "pictures": ("id", "miou", "foreground_iou"),
    "classes": ("class", "iou", "precision", "recall"),
    "confusion": ("actual", "predicted", "pixels"),
    "curve": ("threshold", "miou"),
}
"""Tables and their columns; `curve` exists for CAMs alone."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Scores of one artefact: a nested dictionary of numbers in 0..1, and tables as rows by column name."""

    scores: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def json(self) -> str:
        """The scores, rounded to 5 digits, as JSON text."""
        return json.dumps(_rounded(self.scores), indent=1, ensure_ascii=False) + "\n"

    def csv(self) -> dict[str, str]:
        """Every table as csv text, its header also where it has no rows."""
        return {name: _csv(COLUMNS[name], rows) for name, rows in self.rows.items()}


def evaluate(index: Index, reader: Reader, names: Sequence[str], *, background: float) -> Tables:
    """Score the pictures `names`, all of which have masks, of an artefact of format cams, labels or predictions.

    background: fixed threshold at which CAMs are scored next to their best one.
    """
    curve = ThresholdCurve(index.classes, threshold_grid(background)) if reader.format == "cams" else None
    confusion, instances, rows = Confusion(index.classes), InstanceScores(index.classes), []
    for name in tqdm(names, desc=f"scores {reader.format}", unit="picture", mininterval=1):
        truth, record = read_semantic(index, name), reader[name]
        prediction = record["semantic"] if curve is None else _count_cams(curve, truth, record, background)
        rows.append(picture_row(name, confusion.add(truth, prediction)))
        if "scores" in record and index.has_instances(name):
            _count_instances(instances, index, name, truth, record)
    tables = {"pictures": rows, "classes": _class_rows(confusion), "confusion": _confusion_rows(confusion)}
    if curve is not None:
        tables["curve"] = curve.curve() if names else []
    return Tables(
        {"pictures": len(names), **_scores(confusion, curve, instances, reader.format, bool(names))}, tables
    )


def _count_cams(curve: ThresholdCurve, truth: np.ndarray, record: Record, background: float) -> np.ndarray:
    full = enlarge(record["cams"], (truth.shape[0], truth.shape[1]))
    curve.add(truth, full, record["labels"])
    return assign(full, record["labels"], background)


def _count_instances(
    instances: InstanceScores, index: Index, name: str, truth: np.ndarray, record: Record
) -> None:
    ids, classes = read_instances(index, name)
    predicted = masks_of(record), record["classes"], record["scores"]
    instances.add(name, (ids, classes, truth == IGNORE), predicted)


def _scores(
    confusion: Confusion, curve: ThresholdCurve | None, instances: InstanceScores, format_: str, any_: bool
) -> dict[str, Any]:
    """The numbers `dvc metrics show` prints; without masks there are none, and for predictions without instances no AP."""
    if not any_:
        return {}
    whole = confusion.scores()
    per_class = {name: values["iou"] for name, values in whole.pop("per_class").items()}
    scores: dict[str, Any] = whole | {"iou": per_class}
    if curve is not None:
        threshold, best = curve.best()
        scores = {"best_miou": best, "best_threshold": threshold} | scores
    if format_ != "cams":
        found = instances.compute()
        if found["instances"] and (found["detections"] or format_ == "labels"):
            per = found.pop("per_class")
            scores["instance"] = found | {
                "AP50_per_class": {name: values["AP50"] for name, values in per.items()}
            }
    return scores


def _class_rows(confusion: Confusion) -> list[dict[str, Any]]:
    return [{"class": name, **values} for name, values in confusion.scores()["per_class"].items()]


def _confusion_rows(confusion: Confusion) -> list[dict[str, Any]]:
    """One row a pair of labels, the form in which DVC draws confusion matrices."""
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
    writer.writerows(_rounded(row) for row in rows)
    return out.getvalue()


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 5) if isinstance(value, float) else value
