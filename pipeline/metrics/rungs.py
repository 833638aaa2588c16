"""How each rung of the ladder becomes a label map to compare with the truth, and what else is scored of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipeline.datasets.index import Index
from pipeline.datasets.masks import read_instances
from pipeline.instances.masks import exclusive_record, masks_of
from pipeline.label_map import IGNORE
from pipeline.metrics.failures import Found, find, totals
from pipeline.metrics.instance import InstanceScores
from pipeline.metrics.semantic import ThresholdCurve, assign, ratio, threshold_grid
from pipeline.seeds import enlarge
from pipeline.store import Record

Row = dict[str, Any]


class Look(NamedTuple):
    """A picture to compare: truth (255 where nothing is to be compared) and prediction, uint8 [H,W], and columns of its row."""

    truth: np.ndarray
    prediction: np.ndarray
    row: Row


@dataclass(slots=True)
class Beside:
    """What is scored beside the confusion: numbers by name, columns by class name (`background` too), and tables."""

    scores: Row = field(default_factory=dict)
    classes: dict[str, Row] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)


class Rung(Protocol):
    """Takes the pictures of a step one by one."""

    def look(self, name: str, truth: np.ndarray, record: Record) -> Look:
        """What is compared of a picture; truth: uint8 [H,W], 255 void."""
        ...

    def finish(self) -> Beside:
        """What is scored of all pictures so far; of none, tables without rows alone."""
        ...


class Maps:
    """Class maps, compared at every threshold: those of the walk (`maps` f4 [K,H,W]), or CAMs, which are enlarged."""

    def __init__(self, index: Index, threshold: float) -> None:
        self.threshold = threshold
        self.curve = ThresholdCurve(index.classes, threshold_grid(threshold))

    def look(self, name: str, truth: np.ndarray, record: Record) -> Look:
        """The maps at the fixed threshold."""
        height, width = truth.shape
        maps = record["maps"] if "maps" in record else enlarge(record["cams"], (height, width))
        self.curve.add(truth, maps, record["labels"])
        return Look(truth, assign(maps, record["labels"], self.threshold), {})

    def finish(self) -> Beside:
        """The best threshold for the whole set, the mIoU there, and the curve over all."""
        if not self.curve.histogram.any():
            return Beside(tables={"curve": []})
        threshold, best = self.curve.best()
        scores = {"best_miou": best, "best_threshold": threshold, "threshold": self.threshold}
        return Beside(scores, tables={"curve": self.curve.curve()})


class Seeds:
    """Seeds, compared where they are sure. Coverage is the share of known pixels that are sure, for a class of its true pixels."""

    def __init__(self, index: Index, threshold: float) -> None:
        self.names = ("background", *index.classes)
        self.known, self.sure = np.zeros((2, IGNORE), np.int64)

    def look(self, name: str, truth: np.ndarray, record: Record) -> Look:
        """The seeds, ignored pixels left out."""
        unsure = np.where(record["seeds"] == IGNORE, np.uint8(IGNORE), truth)
        known, sure = (np.bincount(one.ravel(), minlength=256)[:IGNORE] for one in (truth, unsure))
        self.known += known
        self.sure += sure
        return Look(unsure, record["seeds"], {"coverage": ratio(sure.sum(), known.sum())})

    def finish(self) -> Beside:
        """Coverage of all pixels, and of those of each class."""
        by_class = zip(self.names, self.sure, self.known, strict=False)
        return Beside(
            {"coverage": ratio(self.sure.sum(), self.known.sum())},
            {name: {"coverage": ratio(sure, known)} for name, sure, known in by_class},
        )


class Labels:
    """Label maps with instances: average precision where there are instance masks, and failures by kind."""

    def __init__(self, index: Index, threshold: float) -> None:
        self.index = index
        self.instances = InstanceScores(index.classes)
        self.found: dict[str, Found] = {}

    def look(self, name: str, truth: np.ndarray, record: Record) -> Look:
        """The label map; of instances that overlap, failures are those of what is drawn: score 0.3 and more, the surest in front."""
        true = read_instances(self.index, name) if self.index.has_instances(name) else None
        shown = exclusive_record(record)
        self.found[name] = find(truth, record["semantic"], true, (shown["instances"], shown["classes"]))
        if true is not None:
            predicted = masks_of(record), record["classes"], record["scores"]
            self.instances.add(name, (*true, truth == IGNORE), predicted)
        return Look(truth, record["semantic"], {})

    def finish(self) -> Beside:
        """Average precision; failures by picture, by kind, and each with its place."""
        average = self._average_precision()
        per_class = average.pop("per_class", {})
        return Beside(
            average,
            {name: {"AP50": values["AP50"]} for name, values in per_class.items()},
            self._failures(),
        )

    def _average_precision(self) -> dict[str, Any]:
        found = self.instances.compute()
        return found if found["instances"] else {}

    def _failures(self) -> dict[str, list[Row]]:
        if not any(found.out_of.get("merged") for found in self.found.values()):
            for (
                found
            ) in self.found.values():  # no instance anywhere is no instance model, not one that never fails
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
    """What final models predict; where nothing was detected there is no instance model, and so no average precision."""

    def _average_precision(self) -> dict[str, Any]:
        found = super()._average_precision()
        return found if found.get("detections") else {}


RUNGS: Mapping[str, Callable[[Index, float], Rung]] = {
    "cams": Maps,
    "seeds": Seeds,
    "walk": Maps,
    "labels": Labels,
    "predictions": Predictions,
}
"""What can be scored, in the order of the pipeline; each is made of the index and the threshold of maps."""
