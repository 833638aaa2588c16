"""What a report says, in numbers: the ladder of scores, classes, failures, curves, parameters; read and written as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipeline.errors import UserError

TITLES = {
    "cams": "Activation maps",
    "seeds": "Seeds",
    "walk": "Random walk",
    "labels": "Pseudo-labels",
    "predictions": "Final model",
}
"""The rungs of the ladder, in the order of the pipeline, and what they are called."""

BEFORE = {"seeds": "cams", "walk": "cams", "labels": "walk", "predictions": "labels"}
"""The rung that each is measured against: the one before it that, as it does itself, says something of every pixel."""

KINDS = {
    "missed": ("missed objects", "objects: less than a quarter is labelled as anything"),
    "wrong_class": ("wrong class", "objects: labelled, more as other classes than as their own"),
    "bleeding": ("bleeding", "regions at an object of their class: a fifth or more is background"),
    "background_taken": (
        "background taken",
        "regions at no object of their class: half or more is background",
    ),
    "merged": ("merged instances", "instances: half or more of two or more objects in one"),
    "split": ("split instances", "objects: in two or more instances"),
}
"""Kinds of failures: what they are called, and what they are (metrics.failures defines them)."""

FORMAT, VERSION = "weakmask/report", 1
FILE = "report.json"
Table = Sequence[Mapping[str, str]]
Number = float | None
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung of the ladder: its step, the split and number of its pictures, and all its scores by name, ratios in 0..1."""

    __pydantic_config__ = STRICT

    step: str
    split: str
    pictures: int
    scores: dict[str, Number]

    @property
    def miou(self) -> Number:
        """The score it stands for: of maps at their best threshold, which no choice of a threshold spoils."""
        return self.scores.get("best_miou", self.scores.get("miou"))


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that two reports are compared by.

    classes: step -> class -> `iou`, `AP50` and so on; failures: step -> kind -> `count`, `pictures`, `out_of`; curves: step ->
    (threshold, mIoU); pictures: step -> id -> mIoU; parameters: nested; versions: package -> version.
    """

    __pydantic_config__ = STRICT

    ladder: list[Rung]
    classes: dict[str, dict[str, dict[str, Number]]] = field(default_factory=dict)
    failures: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    pictures: dict[str, dict[str, float]] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def rung(self, step: str) -> Rung | None:
        """The rung of a step, None if it has no scores."""
        return next((rung for rung in self.ladder if rung.step == step), None)

    def gain(self, rung: Rung) -> Number:
        """What a rung has more than the one it is measured against; None for the first."""
        before = self.rung(BEFORE.get(rung.step, ""))
        return None if before is None or before.miou is None or rung.miou is None else rung.miou - before.miou

    def json(self) -> str:
        """As JSON text, the same for equal content."""
        head = {"format": FORMAT, "version": VERSION}
        return json.dumps({**head, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"


def summarise(
    tables: Mapping[str, Mapping[str, Table]],
    splits: Mapping[str, str],
    parameters: Mapping[str, Any],
    versions: Mapping[str, str],
) -> Summary:
    """The summary of a run; steps without a scored picture are left out.

    tables: step -> table -> rows as the stage scores wrote them (`metrics.tables`); splits: step -> split of its pictures.
    """
    scores = {step: _scores(tables[step]["summary"]) for step in TITLES if step in tables}
    scored = [step for step, values in scores.items() if values.get("pictures")]
    return Summary(
        [
            Rung(step, splits.get(step, ""), int(scores[step].pop("pictures") or 0), scores[step])
            for step in scored
        ],
        {step: _by(tables[step]["classes"], "class") for step in scored},
        {
            step: {kind: {key: int(n or 0) for key, n in row.items()} for kind, row in found.items()}
            for step in scored
            if (found := _by(tables[step].get("failure_kinds", ()), "kind"))
        },
        {
            step: [(float(row["threshold"]), float(row["miou"])) for row in tables[step]["curve"]]
            for step in scored
            if "curve" in tables[step]
        },
        {
            step: {row["id"]: float(row["miou"]) for row in tables[step]["pictures"] if row["miou"]}
            for step in scored
        },
        dict(parameters),
        dict(versions),
    )


def load(path: Path) -> Summary:
    """Read what `Summary.json` wrote; raises UserError for a file that is missing, damaged or of another version."""
    again = "make it anew with `dvc repro -f report`"
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        hint = (
            f"the report beside it is an older one; {again}"
            if path.with_name("index.html").is_file()
            else again
        )
        raise UserError(f"{path}: no such file; {hint}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {again}") from error


def parse(text: str, name: str) -> Summary:
    """The summary in a JSON text; `name` is for messages. Raises UserError."""
    again = "make it anew with `dvc repro -f report`"
    try:
        content = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{name}: damaged ({error}); {again}") from error
    if content.pop("format", None) != FORMAT:
        raise UserError(f"{name}: not the numbers of a report; {again}")
    if (version := content.pop("version", None)) != VERSION:
        raise UserError(f"{name}: version {version}, this program reads {VERSION}; {again}")
    try:
        return TypeAdapter(Summary).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{name}: damaged ({where}: {first['msg']}); {again}") from error


def _scores(rows: Table) -> dict[str, Number]:
    return {row["score"]: _number(row["value"]) for row in rows}


def _by(rows: Table, key: str) -> dict[str, dict[str, Any]]:
    """Rows by one of their columns, the others as numbers."""
    return {row[key]: {name: _number(value) for name, value in row.items() if name != key} for row in rows}


def _number(text: str) -> Number:
    return float(text) if text else None
