"""What is scored of every rung of the ladder: CAMs, seeds, the walk's result, pseudo-labels and predictions.

| step | mIoU of | further |
|---|---|---|
| cams | the maps at one fixed threshold | at the best one; the curve over all thresholds |
| seeds | the pixels that are sure | coverage: the share of pixels that are sure |
| walk | the maps before the threshold, at the one that was chosen | at the best one; the curve: how much the choice matters |
| labels, predictions | the label maps | average precision of the instances; failures by kind and place |
"""

from collections.abc import Iterable
from typing import Any

from pipeline.datasets.index import Index
from pipeline.datasets.masks import read_semantic
from pipeline.metrics.rungs import RUNGS
from pipeline.metrics.semantic import Confusion, picture_row
from pipeline.metrics.tables import Tables
from pipeline.store import Record


def evaluate(index: Index, step: str, records: Iterable[tuple[str, Record]], *, threshold: float) -> Tables:
    """Score the pictures of one step, all of which have masks; memory does not grow with their size.

    step: a key of rungs.RUNGS; records: picture id and what the step holds of it (for walk: labels.class_maps); threshold: where
    maps are scored next to their best threshold. Without pictures there are tables without rows, and no scores.
    """
    rung, confusion = RUNGS[step](index, threshold), Confusion(index.classes)
    pictures: list[dict[str, Any]] = []
    for name, record in records:
        truth, prediction, own = rung.look(name, read_semantic(index, name), record)
        pictures.append({**picture_row(name, confusion.add(truth, prediction)), **own})
    whole, beside = confusion.scores(), rung.finish()
    per_class = whole.pop("per_class").items()
    classes = [{"class": name, **values, **beside.classes.get(name, {})} for name, values in per_class]
    tables = {"pictures": pictures, "classes": classes, "confusion": _confusion_rows(confusion)}
    scores = {**beside.scores, **whole} if pictures else {}
    return Tables(step, {"pictures": len(pictures), **scores}, {**tables, **beside.tables})


def _confusion_rows(confusion: Confusion) -> list[dict[str, Any]]:
    """One row a pair of labels, the form in which DVC draws confusion matrices."""
    labels = ("background", *confusion.classes)
    return [
        {"actual": actual, "predicted": predicted, "pixels": int(confusion.counts[a, p])}
        for a, actual in enumerate(labels)
        for p, predicted in enumerate(labels)
    ]
