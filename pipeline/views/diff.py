"""Two reports side by side: one HTML page of what changed from the first to the second."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.views import charts
from pipeline.views.report import fill, plain
from pipeline.views.report_data import KINDS, TITLES, Number, Summary

MOVED = 10
"""Images shown that gained most, and as many that lost most."""


@dataclass(frozen=True, slots=True)
class Change:
    """One number in both reports, each None where it is not there."""

    name: str
    first: Number
    second: Number

    @property
    def difference(self) -> Number:
        """Second minus first."""
        return None if self.first is None or self.second is None else self.second - self.first


def render(first: Summary, second: Summary, names: tuple[str, str]) -> str:
    """The whole page as HTML text; the same bytes for the same input, every name escaped.

    names: what the two reports are called.
    """
    return fill(
        "difference.html.j2",
        title=f"{names[0]} and {names[1]}",
        names=names,
        titles=TITLES,
        ladder=ladder(first, second),
        charts=_charts(first, second, names),
        failures=failures(first, second),
        classes=classes(first, second),
        moved=moved(first, second),
        parameters=parameters(first, second),
        versions=_settings(first.versions, second.versions),
    )


def steps(first: Summary, second: Summary) -> list[str]:
    """The steps that either report has."""
    return [step for step in TITLES if first.scored_step(step) or second.scored_step(step)]


def ladder(first: Summary, second: Summary) -> list[Change]:
    """The score of every step, and further ones of it: at the threshold in use, coverage, AP50."""
    changes = []
    for step in steps(first, second):
        scored_steps = first.scored_step(step), second.scored_step(step)
        changes.append(
            Change(
                TITLES[step],
                *(scored_step.miou if scored_step else None for scored_step in scored_steps),
            )
        )
        scores = [scored_step.scores if scored_step else {} for scored_step in scored_steps]
        further = {"coverage": "coverage", "AP50": "AP50"}
        if any("best_miou" in one for one in scores):
            further["miou"] = "at the threshold in use"
        for key, name in further.items():
            if any(one.get(key) is not None for one in scores):
                changes.append(Change(f"{TITLES[step]}, {name}", *(one.get(key) for one in scores)))
    return changes


def classes(first: Summary, second: Summary) -> dict[str, list[Change]]:
    """Step -> IoU of every class."""
    found = {}
    for step in steps(first, second):
        tables = first.classes.get(step, {}), second.classes.get(step, {})
        found[step] = [
            Change(name, *(table.get(name, {}).get("iou") for table in tables))
            for name in dict.fromkeys(name for table in tables for name in table)
        ]
    return found


def failures(first: Summary, second: Summary) -> dict[str, list[Change]]:
    """Step -> number of failures of every kind."""
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


def moved(first: Summary, second: Summary) -> dict[str, dict[str, list[Change]]]:
    """Step -> `gained` and `lost` -> the images of both reports whose mIoU moved most, largest
    first.
    """
    found = {}
    for step in ("labels", "predictions"):
        own = first.images.get(step, {}), second.images.get(step, {})
        both = [
            Change(name, own[0][name], own[1][name])
            for name in sorted(own[0].keys() & own[1].keys())
        ]
        order = sorted(both, key=lambda change: change.difference or 0, reverse=True)
        gained = [change for change in order if (change.difference or 0) > 0][:MOVED]
        lost = [change for change in reversed(order) if (change.difference or 0) < 0][:MOVED]
        if gained or lost:
            found[step] = {"gained": gained, "lost": lost}
    return found


def parameters(first: Summary, second: Summary) -> list[tuple[str, str, str]]:
    """(section.name, first value, second value) of the parameters that differ."""
    return _settings(dict(_flat(first.parameters)), dict(_flat(second.parameters)))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested parameters with dotted names."""
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        nested = isinstance(value, Mapping) and value
        found += _flat(value, f"{prefix}{name}.") if nested else [(f"{prefix}{name}", value)]
    return found


def _settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (name, *(plain(one[name]) if name in one else "not there" for one in (first, second)))  # type: ignore[misc]
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    ]


def _charts(first: Summary, second: Summary, names: tuple[str, str]) -> list[charts.Chart]:
    made = []
    for step, axis in (("cams", "threshold"), ("walk", "labels.background")):
        both = {
            name: one.curves.get(step, []) for name, one in zip(names, (first, second), strict=True)
        }
        scored_steps = {
            name: one.scored_step(step) for name, one in zip(names, (first, second), strict=True)
        }
        chosen = {
            name: scored_step.scores.get("threshold")
            for name, scored_step in scored_steps.items()
            if scored_step
        }
        title = f"mIoU of {TITLES[step].lower()}"
        chart = charts.curve(
            title, axis, both, {name: t for name, t in chosen.items() if t is not None}
        )
        made += [chart] if chart else []
    return made
