"""The numbers of a report: scores per step, class and image, failures, curves, parameters; and what
changed from one report to another.

Collected from the tables of stage scores; written to and read from report.json.
"""

import csv
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipeline.errors import UserError

TITLES = {
    "cams": "class activation maps",
    "seeds": "confident pixels",
    "walk": "maps after the random walk",
    "labels": "pseudo-labels",
    "predictions": "final models",
}
"""The scored steps, in the order of the pipeline, and what they are."""
SPLITS = {step: "val" if step == "predictions" else "train" for step in TITLES}
"""Step -> split of its images."""
PREVIOUS = {"seeds": "cams", "walk": "cams", "labels": "walk", "predictions": "labels"}
"""The step each step's gain is measured against: the previous step that labels every pixel."""
KINDS = {
    "missed": ("missed objects", "objects with less than a quarter of their pixels labeled"),
    "wrong_class": ("wrong class", "objects with more pixels of other classes than of their own"),
    "bleeding": (
        "bleeding",
        "regions that touch an object of their class but are a fifth or more background",
    ),
    "background_taken": (
        "background taken",
        "regions that touch no object of their class and are half or more background",
    ),
    "merged": (
        "merged instances",
        "instances that cover half or more of each of two or more objects",
    ),
    "split": ("split instances", "objects divided among two or more instances"),
}
"""Kinds of failures: title and definition (see metrics.failures)."""
FORMAT, VERSION, FILE = "weakmask/report", 2, "report.json"
REMAKE = "make it again with `dvc repro -f report`"
REMAKE_TABLE = "`dvc repro` makes it again"
PACKAGES = ("weakmask", "torch", "torchvision", "timm", "numpy")
Table = Sequence[Mapping[str, str]]
Number = float | None
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class StepScores:
    """The scores of one step by name, ratios in [0,1], with the split and number of its images."""

    __pydantic_config__ = STRICT

    step: str
    split: str
    images: int
    scores: dict[str, Number]

    @property
    def miou(self) -> Number:
        """The headline mIoU: of class maps at their best threshold, as no chosen one is fair."""
        return self.scores.get("best_miou", self.scores.get("miou"))


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that two reports are compared by.

    classes: step -> class -> `iou`, `AP50` and so on; failures: step -> kind -> `count`, `images`,
    `out_of`; curves: step -> (threshold, mIoU); images: step -> id -> mIoU; parameters: nested;
    versions: package -> version.
    """

    __pydantic_config__ = STRICT

    steps: list[StepScores]
    classes: dict[str, dict[str, dict[str, Number]]] = field(default_factory=dict)
    failures: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    images: dict[str, dict[str, float]] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def step(self, name: str) -> StepScores | None:
        """Return the scores of a step; None if it has none."""
        return next((scores for scores in self.steps if scores.step == name), None)

    def previous(self, scores: StepScores) -> StepScores | None:
        """Return the scores that a step's gain is measured against."""
        return self.step(PREVIOUS.get(scores.step, ""))

    def gain(self, scores: StepScores) -> Number:
        """Return how much a step gained over the previous one; None for the first."""
        previous = self.previous(scores)
        if previous is None or previous.miou is None or scores.miou is None:
            return None
        return scores.miou - previous.miou

    def json(self) -> str:
        """Return JSON text, equal for equal content."""
        head = {"format": FORMAT, "version": VERSION}
        return json.dumps({**head, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"


def collect(
    tables: Mapping[str, Mapping[str, Table]],
    parameters: Mapping[str, Any],
    versions: Mapping[str, str],
) -> ReportData:
    """Collect the numbers of a run; steps without a scored image are left out.

    tables: step -> table -> rows as stage scores wrote them (see metrics.steps).
    """
    steps, rows = [], {step: tables[step] for step in TITLES if step in tables}
    for step in list(rows):
        scores = {row["score"]: _number(row["value"]) for row in rows[step]["summary"]}
        if images := scores.pop("images", None):
            steps.append(StepScores(step, SPLITS[step], int(images), scores))
        else:
            del rows[step]
    return ReportData(
        steps,
        {step: _by(own["classes"], "class") for step, own in rows.items()},
        {
            step: {
                kind: {key: int(n or 0) for key, n in row.items()} for kind, row in found.items()
            }
            for step, own in rows.items()
            if (found := _by(own.get("failure_kinds", ()), "kind"))
        },
        {
            step: [(float(row["threshold"]), float(row["miou"])) for row in own["curve"]]
            for step, own in rows.items()
            if "curve" in own
        },
        {
            step: {row["id"]: float(row["miou"]) for row in own["images"] if row["miou"]}
            for step, own in rows.items()
        },
        dict(parameters),
        dict(versions),
    )


def _by(rows: Table, key: str) -> dict[str, dict[str, Any]]:
    """Return rows by one of their columns, the others as numbers."""
    return {
        row[key]: {name: _number(value) for name, value in row.items() if name != key}
        for row in rows
    }


def _number(text: str) -> Number:
    return float(text) if text else None


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that results depend on.

    Labels of builds such as +cu132, which differ between machines, are dropped.
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            continue
    return found


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file that a stage wrote.

    Raises UserError for a file that is missing, truncated or damaged. One cut between two lines
    looks whole; only DVC, which knows the file's hash, can tell.
    """
    try:
        text = path.read_bytes().decode()
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a readable table ({error}); {REMAKE_TABLE}") from error
    if text and not text.endswith("\n"):
        raise UserError(f"{path}: damaged, it ends within a line; {REMAKE_TABLE}")
    if any(None in row or None in row.values() for row in rows):
        raise UserError(f"{path}: damaged, rows and header differ in length; {REMAKE_TABLE}")
    return rows


def read_tables(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Read all CSV files of a folder, by name."""
    return {path.stem: read_rows(path) for path in sorted(folder.glob("*.csv"))}


def load(path: Path) -> ReportData:
    """Read report.json; raises UserError if it is missing, damaged or of another version."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {REMAKE}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {REMAKE}") from error


def parse(text: str, name: str) -> ReportData:
    """Parse the text of report.json; raises UserError that begins with `name`."""
    try:
        content = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{name}: damaged ({error}); {REMAKE}") from error
    if content.pop("format", None) != FORMAT:
        raise UserError(f"{name}: not the numbers of a report; {REMAKE}")
    if (found := content.pop("version", None)) != VERSION:
        raise UserError(f"{name}: version {found}, this program reads {VERSION}; {REMAKE}")
    try:
        return TypeAdapter(ReportData).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{name}: damaged ({where}: {first['msg']}); {REMAKE}") from error


COMPARED = {"best_miou": ", best threshold", "miou": "", "coverage": ", coverage", "AP50": ", AP50"}
"""Scores of a step that two reports are compared by -> what follows the step's name in titles."""
MOST_CHANGED = 10
"""Images listed that gained most, and as many that lost most."""


@dataclass(frozen=True, slots=True)
class Change:
    """A number in both reports, each None if that report lacks it."""

    name: str
    first: Number
    second: Number

    @property
    def difference(self) -> Number:
        """Second minus first."""
        return None if self.first is None or self.second is None else self.second - self.first


def step_changes(first: ReportData, second: ReportData) -> list[Change]:
    """Return the scores of every step that one of both has, named as `weakmask scores` does."""
    changes = []
    for step in TITLES:
        both = [one.scores if one else {} for one in (first.step(step), second.step(step))]
        changes += [
            Change(f"{step}{which}", *(scores.get(key) for scores in both))
            for key, which in COMPARED.items()
            if any(scores.get(key) is not None for scores in both)
        ]
    return changes


def class_changes(first: ReportData, second: ReportData) -> dict[str, list[Change]]:
    """Return step -> IoU of every class, of the steps that both have."""
    both = {step: (first.classes.get(step, {}), second.classes.get(step, {})) for step in TITLES}
    return {
        step: [
            Change(name, *(table.get(name, {}).get("iou") for table in tables))
            for name in {**tables[0], **tables[1]}
        ]
        for step, tables in both.items()
        if all(tables)
    }


def failure_changes(first: ReportData, second: ReportData) -> dict[str, list[Change]]:
    """Return step -> number of failures of every kind, of the steps that both have."""
    both = {step: (first.failures.get(step, {}), second.failures.get(step, {})) for step in TITLES}
    return {
        step: [
            Change(title, *(table[kind]["count"] if kind in table else None for table in tables))
            for kind, (title, _) in KINDS.items()
            if any(kind in table for table in tables)
        ]
        for step, tables in both.items()
        if all(tables)
    }


def most_changed(first: ReportData, second: ReportData) -> dict[str, dict[str, list[Change]]]:
    """Return step -> `gained` and `lost` -> images of both reports by how much mIoU changed."""
    found = {}
    for step in ("labels", "predictions"):
        before, after = first.images.get(step, {}), second.images.get(step, {})
        both = [Change(name, before[name], after[name]) for name in sorted(before) if name in after]
        order = sorted(both, key=lambda change: change.difference or 0, reverse=True)
        sides = {
            "gained": [change for change in order if (change.difference or 0) > 0],
            "lost": [change for change in reversed(order) if (change.difference or 0) < 0],
        }
        if any(sides.values()):
            found[step] = {side: changes[:MOST_CHANGED] for side, changes in sides.items()}
    return found


def changed_values(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Return (dotted name, first value, second value) of the nested values that differ."""
    old, new = flat(first), flat(second)
    return [
        (name, old.get(name, "missing"), new.get(name, "missing"))
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted name."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found
