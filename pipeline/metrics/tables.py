"""Scores of one artefact as files: a few numbers for DVC, everything else as tables."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.metrics.failures import KINDS

COLUMNS: Mapping[str, Sequence[str]] = {
    "summary": ("score", "value"),
    "pictures": ("id", "miou", "foreground_iou"),
    "classes": ("class", "iou", "precision", "recall"),
    "confusion": ("actual", "predicted", "pixels"),
    "curve": ("threshold", "miou"),
    "failures": ("id", *KINDS),
    "failure_kinds": ("kind", "count", "pictures", "out_of"),
    "failure_places": ("id", "kind", "class", "pixels", "top", "left", "bottom", "right"),
}
"""Tables and their columns; which of them there are depends on what is scored."""

OWN: Mapping[tuple[str, str], Sequence[str]] = {
    ("seeds", "pictures"): ("coverage",),
    ("seeds", "classes"): ("coverage",),
    ("labels", "classes"): ("AP50",),
    ("predictions", "classes"): ("AP50",),
}
"""Further columns of one step's table."""

METRICS = ("best_miou", "miou", "coverage", "AP50")
"""The scores that `dvc metrics show` and `dvc exp show` list, each as STEP.SCORE; the others are in table `summary`."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Scores of the artefact `step`: numbers by name (ratios in 0..1, counts), and tables as rows by column name."""

    step: str
    scores: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def json(self) -> str:
        """The few scores that runs are compared by, under the step's name and rounded to 5 digits, as JSON text.

        The name makes every key differ from those of the other steps, so that DVC's columns need no file names.
        """
        few = {name: _rounded(self.scores[name]) for name in METRICS if self.scores.get(name) is not None}
        return json.dumps({self.step: few}, indent=1, ensure_ascii=False) + "\n"

    def csv(self) -> dict[str, str]:
        """All scores as table `summary`, and every other table, as csv text; those without rows have their header."""
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
