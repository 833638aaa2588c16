"""The report: one HTML page that needs no network, no script and no second file, readable from a phone's width up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.views import charts, overlays
from pipeline.views.gathering import Example
from pipeline.views.mistakes import Mistake
from pipeline.views.pages import css_colour, fill, percent
from pipeline.views.summary import BEFORE, KINDS, TITLES, Rung, Summary

Rows = Sequence[Mapping[str, Any]]
Cells = list[float | None]


@dataclass(frozen=True, slots=True)
class Step:
    """A row of the ladder as it is shown: what its score is of, and of what its gain is not a fair measure, if anything."""

    rung: Rung
    title: str
    gain: float | None
    over: str
    note: str
    panel: np.ndarray | None


def render(
    *,
    title: str,
    lead: str,
    summary: Summary,
    panels: Mapping[str, np.ndarray] | None = None,
    curves: Mapping[str, Rows] | None = None,
    confusions: Mapping[str, Rows] | None = None,
    mistakes: Mapping[str, Sequence[Mistake]] | None = None,
    ranked: Mapping[str, Mapping[str, Sequence[Example]]] | None = None,
    rows: Sequence[Example] = (),
) -> str:
    """The whole page as HTML text; the same bytes for the same input, every name escaped.

    lead: what was made, in a line; panels: step -> picture beside its row of the ladder; curves: network -> rows of its training
    curve, the first column is the x axis; confusions: step -> csv rows `actual`, `predicted`, `pixels`; ranked: step -> worst,
    median and best -> pictures; rows: example pictures.
    """
    drawn = {name: charts.charts(table) for name, table in (curves or {}).items()}
    counted = {step: charts.heat_map(table) for step, table in (confusions or {}).items() if table}
    return fill(
        "report.html.j2",
        title=title,
        lead=lead,
        titles=TITLES,
        kinds=KINDS,
        ladder=[_step(summary, rung, panels or {}) for rung in summary.ladder],
        summary=summary,
        classes=class_rows(summary),
        thresholds=_threshold_charts(summary),
        mistakes={step: found for step, found in (mistakes or {}).items() if found},
        ranked={step: found for step, found in (ranked or {}).items() if any(found.values())},
        examples=rows,
        heat={step: found for step, found in counted.items() if found.names},
        charts={name: made for name, made in drawn.items() if made},
    )


def _step(summary: Summary, rung: Rung, panels: Mapping[str, np.ndarray]) -> Step:
    before = summary.rung(BEFORE.get(rung.step, ""))
    over = ""
    if before is not None:
        over = f"over {TITLES[before.step].lower()}"
        if rung.split != before.split:
            over += f", which are of other pictures ({before.split})"
        elif rung.step == "seeds":
            over += ", on fewer pixels"
    return Step(rung, TITLES[rung.step], summary.gain(rung), over, _note(rung), panels.get(rung.step))


def _note(rung: Rung) -> str:
    """What else is to say of a rung."""
    scores, note = rung.scores, ""
    if "best_miou" in scores:
        note = (
            f"at the best threshold, {scores['best_threshold']:g}; "
            f"{percent(scores['miou'])} at the chosen {scores['threshold']:g}"
        )
    elif "coverage" in scores:
        note = f"of the {percent(scores['coverage'])} % of the pixels that are sure"
    elif scores.get("AP50") is not None:
        note = f"instances: AP50 {percent(scores['AP50'])}, AP {percent(scores.get('AP'))}"
    return note


def class_rows(summary: Summary) -> list[tuple[str, str | None, Cells, Cells]]:
    """(class, colour or None for background, IoU per step of the ladder, AP50 per step that has instances)."""
    names = list(dict.fromkeys(name for rows in summary.classes.values() for name in rows))
    foreground = [name for name in names if name != "background"]
    palette = dict(zip(foreground, overlays.palette(len(foreground)).tolist(), strict=True))
    tables = [summary.classes.get(rung.step, {}) for rung in summary.ladder]
    return [
        (
            name,
            css_colour(palette[name]) if name in palette else None,
            [table.get(name, {}).get("iou") for table in tables],
            [
                table.get(name, {}).get("AP50")
                for table, rung in zip(tables, summary.ladder, strict=True)
                if rung.scores.get("AP50") is not None
            ],
        )
        for name in names
    ]


def _threshold_charts(summary: Summary) -> list[charts.Chart]:
    """mIoU over the threshold, of maps and of the walk."""
    names = {"cams": ("activation maps", "threshold"), "walk": ("pseudo-labels", "labels.background")}
    made = []
    for step, (name, axis) in names.items():
        rung = summary.rung(step)
        threshold = rung.scores.get("threshold") if rung else None
        chosen = {} if threshold is None else {"mIoU": threshold}
        chart = charts.curve(f"mIoU of {name}", axis, {"mIoU": summary.curves.get(step, [])}, chosen)
        made += [chart] if chart else []
    return made
