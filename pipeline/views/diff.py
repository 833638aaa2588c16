"""Two reports side by side: one HTML page of what changed from the first to the second."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.views import charts
from pipeline.views.report import CURVES, fill, plain
from pipeline.views.report_data import KINDS, TITLES, Number, ReportData

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


def render(first: ReportData, second: ReportData, names: tuple[str, str]) -> str:
    """Return the page as HTML; equal input gives equal bytes, and every name is escaped.

    names: what the two reports are called.
    """
    return fill(
        "diff.html.j2",
        title=f"{names[0]} vs. {names[1]}",
        names=names,
        titles=TITLES,
        steps=step_changes(first, second),
        charts=_charts(first, second, names),
        failures=failure_changes(first, second),
        classes=class_changes(first, second),
        changed=most_changed(first, second),
        parameters=parameter_changes(first, second),
        versions=_changed_values(first.versions, second.versions),
    )


def steps(first: ReportData, second: ReportData) -> list[str]:
    """Return the steps that either report has."""
    return [step for step in TITLES if first.step(step) or second.step(step)]


def step_changes(first: ReportData, second: ReportData) -> list[Change]:
    """Return the score of every step, and further ones: coverage, AP50, at the threshold in use."""
    changes = []
    for step in steps(first, second):
        both = first.step(step), second.step(step)
        changes.append(Change(TITLES[step], *(one.miou if one else None for one in both)))
        scores = [one.scores if one else {} for one in both]
        further = {"coverage": "coverage", "AP50": "AP50"}
        if any("best_miou" in one for one in scores):
            further["miou"] = "at the threshold in use"
        changes += [
            Change(f"{TITLES[step]}, {name}", *(one.get(key) for one in scores))
            for key, name in further.items()
            if any(one.get(key) is not None for one in scores)
        ]
    return changes


def class_changes(first: ReportData, second: ReportData) -> dict[str, list[Change]]:
    """Return step -> IoU of every class."""
    found = {}
    for step in steps(first, second):
        tables = first.classes.get(step, {}), second.classes.get(step, {})
        found[step] = [
            Change(name, *(table.get(name, {}).get("iou") for table in tables))
            for name in dict.fromkeys(name for table in tables for name in table)
        ]
    return found


def failure_changes(first: ReportData, second: ReportData) -> dict[str, list[Change]]:
    """Return step -> number of failures of every kind."""
    found = {}
    for step in steps(first, second):
        tables = first.failures.get(step, {}), second.failures.get(step, {})
        changes = [
            Change(title, *(table[kind]["count"] if kind in table else None for table in tables))
            for kind, (title, _) in KINDS.items()
            if any(kind in table for table in tables)
        ]
        if changes:
            found[step] = changes
    return found


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


def parameter_changes(first: ReportData, second: ReportData) -> list[tuple[str, str, str]]:
    """Return (section.name, first value, second value) of the parameters that differ."""
    return _changed_values(dict(_flat(first.parameters)), dict(_flat(second.parameters)))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested parameters with dotted names."""
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        nested = isinstance(value, Mapping) and value
        found += _flat(value, f"{prefix}{name}.") if nested else [(f"{prefix}{name}", value)]
    return found


def _changed_values(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]

    def text(values: Mapping[str, Any], name: str) -> str:
        return plain(values[name]) if name in values else "missing"

    return [(name, text(first, name), text(second, name)) for name in names]


def _charts(first: ReportData, second: ReportData, names: tuple[str, str]) -> list[charts.Chart]:
    made, reports = [], dict(zip(names, (first, second), strict=True))
    for step, (_, axis) in CURVES.items():
        curves = {name: data.curves.get(step, []) for name, data in reports.items()}
        chosen = {}
        for name, data in reports.items():
            scores = data.step(step)
            if scores and (threshold := scores.scores.get("threshold")) is not None:
                chosen[name] = threshold
        chart = charts.curve(f"mIoU of {TITLES[step].lower()}", axis, curves, chosen)
        made += [chart] if chart else []
    return made
