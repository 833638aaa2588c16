"""The report, and what changed between two reports: HTML pages without network, script or second
file, readable on a phone too.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.views import charts, overlays
from pipeline.views.gallery import Example, FailureExample, Found
from pipeline.views.report_data import (
    KINDS,
    TITLES,
    ReportData,
    StepScores,
    changed_values,
    class_changes,
    failure_changes,
    most_changed,
    step_changes,
)

TEMPLATES = Path(__file__).parent
QUALITY = 60
"""Of WebP: a panel of 200 pixels takes about 3 kB."""
SCORES = {
    "miou": "mIoU",
    "best_miou": "best mIoU",
    "pixel_accuracy": "pixel accuracy",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
    "AP50": "AP50",
    "AP75": "AP75",
    "AP": "AP",
    "voc_AP50": "VOC AP50",
    "voc_AP70": "VOC AP70",
}
"""Columns of the table of all scores."""
CURVES = {"cams": "background threshold", "walk": "labels.background"}
"""Step -> axis of its threshold curve."""
OPEN = 3
"""Images of each step that are shown unfolded."""
Rows = Sequence[Mapping[str, Any]]
Cells = list[float | None]


@dataclass(frozen=True, slots=True)
class StepRow:
    """A row of the pipeline table: scores, gain over the previous step, notes and a panel."""

    scores: StepScores
    about: str
    gain: float | None
    over: str
    note: str
    panel: np.ndarray | None


def render(
    *,
    title: str,
    lead: str,
    data: ReportData,
    panels: Mapping[str, np.ndarray] | None = None,
    curves: Mapping[str, Rows] | None = None,
    confusions: Mapping[str, Rows] | None = None,
    failures: Mapping[str, Sequence[FailureExample]] | None = None,
    ranked: Mapping[str, Mapping[str, Sequence[Example]]] | None = None,
    found: Mapping[str, Found] | None = None,
    examples: Sequence[Example] = (),
) -> str:
    """Return the page as HTML; equal input gives equal bytes, and every name is escaped.

    Args:
        title: heading of the page.
        lead: what was made, in a line.
        data: the numbers.
        panels: step -> image next to its scores.
        curves: network -> rows of its training curve, the first column is the x axis.
        confusions: step -> rows `actual`, `predicted`, `pixels`.
        failures: step -> kinds of failures.
        ranked: step -> worst, median and best -> images.
        found: step -> what its label maps contain, where nothing is scored.
        examples: further images.
    """
    drawn = {name: charts.charts(table) for name, table in (curves or {}).items()}
    counted = {step: charts.heat_map(table) for step, table in (confusions or {}).items() if table}
    return _fill(
        "report.html.j2",
        title=title,
        lead=lead,
        kinds=KINDS,
        columns=SCORES,
        steps=[_step_row(data, scores, panels or {}) for scores in data.steps],
        found=found or {},
        data=data,
        classes=class_rows(data),
        thresholds=_threshold_charts({"mIoU": data}),
        failures={step: kinds for step, kinds in (failures or {}).items() if kinds},
        ranked={step: places for step, places in (ranked or {}).items() if any(places.values())},
        examples=examples,
        unfolded=OPEN,
        heat={step: heat for step, heat in counted.items() if heat.names},
        charts={name: made for name, made in drawn.items() if made},
    )


def _step_row(data: ReportData, scores: StepScores, panels: Mapping[str, np.ndarray]) -> StepRow:
    previous, over = data.previous(scores), ""
    if previous is not None:
        over = f"over {previous.step}"
        if scores.split != previous.split:
            over += f" (of other images, {previous.split})"
        elif scores.step == "seeds":
            over += " (on fewer pixels)"
    panel, about = panels.get(scores.step), TITLES[scores.step]
    return StepRow(scores, about, data.gain(scores), over, _note(scores.scores), panel)


def _note(scores: Mapping[str, float | None]) -> str:
    """Return what else there is to say about the scores of a step."""
    if "best_miou" in scores:
        return (
            f"at the best threshold, {scores['best_threshold']:g}; "
            f"{percent(scores['miou'])} at the threshold in use, {scores['threshold']:g}"
        )
    if "coverage" in scores:
        return f"on the {percent(scores['coverage'])} % of the pixels that are labeled"
    if scores.get("AP50") is not None:
        return f"instances: AP50 {percent(scores['AP50'])}, AP {percent(scores.get('AP'))}"
    return ""


def class_rows(data: ReportData) -> list[tuple[str, str | None, Cells, Cells]]:
    """Return (class, color or None for background, IoU per step, AP50 per step with instances)."""
    names = list(dict.fromkeys(name for rows in data.classes.values() for name in rows))
    foreground = [name for name in names if name != "background"]
    palette = dict(zip(foreground, overlays.palette(len(foreground)).tolist(), strict=True))
    tables = [(data.classes.get(one.step, {}), one.scores.get("AP50")) for one in data.steps]
    return [
        (
            name,
            overlays.css_color(palette[name]) if name in palette else None,
            [table.get(name, {}).get("iou") for table, _ in tables],
            [table.get(name, {}).get("AP50") for table, ap50 in tables if ap50 is not None],
        )
        for name in names
    ]


def render_diff(first: ReportData, second: ReportData, names: tuple[str, str]) -> str:
    """Return a page of what changed from the first to the second report as HTML.

    names: what the two reports are called.
    """
    return _fill(
        "diff.html.j2",
        title=f"{names[0]} vs. {names[1]}",
        names=names,
        steps=step_changes(first, second),
        charts=_threshold_charts(dict(zip(names, (first, second), strict=True))),
        failures=failure_changes(first, second),
        classes=class_changes(first, second),
        changed=most_changed(first, second),
        parameters=changed_values(first.parameters, second.parameters),
        # a run whose report another run made has scores, but no versions
        versions=changed_values(first.versions, second.versions)
        if first.versions and second.versions
        else [],
    )


def _threshold_charts(reports: Mapping[str, ReportData]) -> list[charts.Chart]:
    """Return a chart of mIoU over the threshold for each step that has one, a line per report."""
    made = []
    for step, axis in CURVES.items():
        curves = {
            name: [(x, 100 * y) for x, y in data.curves.get(step, [])]
            for name, data in reports.items()
        }
        scores = {name: data.step(step) for name, data in reports.items()}
        chosen = {name: one.scores.get("threshold") for name, one in scores.items() if one}
        chart = charts.curve(f"{step}, mIoU in %", axis, curves, chosen)
        made += [chart] if chart else []
    return made


def _fill(template: str, **values: Any) -> str:
    """Fill an HTML template; equal values give equal bytes, and every name is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "image": data_uri,
        "color": overlays.css_color,
        "plain": plain,
    }
    return environment.get_template(template).render(box=charts, **values)


def percent(value: float | None) -> str:
    """Return a ratio as a percentage with one digit; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """Return a difference of ratios in points with its sign; a dash for None."""
    if value is None:
        return "–"
    text = f"{100 * value:+.1f}"
    return "±0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def plain(value: Any) -> str:
    """Return a parameter as a person writes it: lists with commas, nothing as a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return str(value)


def data_uri(panel: np.ndarray) -> str:
    """Return a uint8 RGB panel as a WebP image inside the page."""
    file = io.BytesIO()
    Image.fromarray(panel).save(file, "WEBP", quality=QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
