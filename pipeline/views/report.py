"""The report: one HTML page that needs no network, no script and no second file, readable from a
phone's width up.

Pages from templates: one HTML file that needs no network, no script and no second file.

One image for each kind of failure, with the place marked.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from pipeline.views import charts, overlays
from pipeline.views.report_data import BEFORE, KINDS, TITLES, Example, Gallery, ScoredStep, Summary

TEMPLATES = Path(__file__).parent
QUALITY = 60
"""Of WebP: a panel of 200 pixels takes about 3 kB."""


def fill(template: str, **values: Any) -> str:
    """The template's page as HTML text; the same bytes for the same values, every name escaped."""
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
        "color": css_color,
        "plain": plain,
    }
    return environment.get_template(template).render(box=charts, **values)


def percent(value: float | None) -> str:
    """A ratio as a percentage with one digit; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """A difference of ratios in points with its sign; a dash for None."""
    if value is None:
        return "–"
    text = f"{100 * value:+.1f}"
    return "±0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def plain(value: Any) -> str:
    """A parameter as a person writes it: lists by commas, nothing as a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return str(value)


def data_uri(panel: np.ndarray) -> str:
    """A uint8 RGB panel as a WebP image inside the page."""
    file = io.BytesIO()
    Image.fromarray(panel).save(file, "WEBP", quality=QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def css_color(color: Sequence[int]) -> str:
    """#rrggbb of three values of 0..255."""
    return "#{:02x}{:02x}{:02x}".format(*color)


SHOWN = {
    "labels": ("image", "pseudo-label", "truth"),
    "predictions": ("image", "prediction", "truth"),
}
INSTANCES = {
    "labels": ("image", "instances", "true instances"),
    "predictions": ("image", "predicted instances", "true instances"),
}
"""Step -> panels that show a failure of its label maps, and of its instances."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """A kind of failure in one step: how often, in how many images, out of how many, and where it
    takes most pixels.
    """

    kind: str
    count: int
    images: int
    out_of: int
    example: Example | None


def mistakes(
    gallery: Gallery,
    step: str,
    kinds: Mapping[str, Mapping[str, int]],
    places: Sequence[Mapping[str, str]],
) -> list[Mistake]:
    """Every kind that was judged, with the largest one drawn.

    step: labels or predictions; kinds and places: its tables `failure_kinds` and `failure_places`
    (`metrics.tables`).
    """
    return [
        Mistake(
            kind,
            numbers["count"],
            numbers["images"],
            numbers["out_of"],
            largest(gallery, step, kind, places),
        )
        for kind, numbers in kinds.items()
        if kind in KINDS
    ]


def largest(
    gallery: Gallery, step: str, kind: str, places: Sequence[Mapping[str, str]]
) -> Example | None:
    """The image in which a failure of this kind takes most pixels, of equal ones the first by id;
    None without any.
    """
    own = [place for place in places if place["kind"] == kind]
    if not own:
        return None
    place = min(own, key=lambda row: (-int(row["pixels"]), row["id"]))
    titles = (INSTANCES if kind in ("merged", "split") else SHOWN)[step]
    example = gallery.example(place["id"], note=place["class"]).only(titles)
    image = gallery.index[place["id"]]
    box = tuple(int(place[edge]) for edge in ("top", "left", "bottom", "right"))
    marked = {
        title: boxed(panel, box, (image.height, image.width))
        for title, panel in example.panels.items()
    }
    return Example(example.id, marked, keys=example.keys, note=example.note)


def boxed(panel: np.ndarray, box: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """A panel with a light frame on a dark rim around a box (top, left, bottom, right) of an image
    of `size` (H,W); a copy.
    """
    height, width = panel.shape[:2]
    down, across = height / size[0], width / size[1]
    corner = max(0, round(box[1] * across) - 2), max(0, round(box[0] * down) - 2)
    other = min(width - 1, round(box[3] * across) + 1), min(height - 1, round(box[2] * down) + 1)
    drawn = np.ascontiguousarray(panel.copy())
    for color, thickness in (((20, 20, 24), 4), ((255, 255, 255), 2)):
        cv2.rectangle(drawn, corner, other, color, thickness)
    return drawn


Rows = Sequence[Mapping[str, Any]]
Cells = list[float | None]


@dataclass(frozen=True, slots=True)
class Step:
    """A row of the ladder as it is shown: what its score is of, and of what its gain is not a fair
    measure, if anything.
    """

    scored_step: ScoredStep
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

    lead: what was made, in a line; panels: step -> image beside its row of the ladder; curves:
    network -> rows of its training curve, the first column is the x axis; confusions: step -> csv
    rows `actual`, `predicted`, `pixels`; ranked: step -> worst, median and best -> images; rows:
    example images.
    """
    drawn = {name: charts.charts(table) for name, table in (curves or {}).items()}
    counted = {step: charts.heat_map(table) for step, table in (confusions or {}).items() if table}
    return fill(
        "report.html.j2",
        title=title,
        lead=lead,
        titles=TITLES,
        kinds=KINDS,
        ladder=[_step(summary, scored_step, panels or {}) for scored_step in summary.ladder],
        summary=summary,
        classes=class_rows(summary),
        thresholds=_threshold_charts(summary),
        mistakes={step: found for step, found in (mistakes or {}).items() if found},
        ranked={step: found for step, found in (ranked or {}).items() if any(found.values())},
        examples=rows,
        heat={step: found for step, found in counted.items() if found.names},
        charts={name: made for name, made in drawn.items() if made},
    )


def _step(summary: Summary, scored_step: ScoredStep, panels: Mapping[str, np.ndarray]) -> Step:
    before = summary.scored_step(BEFORE.get(scored_step.step, ""))
    over = ""
    if before is not None:
        over = f"over {TITLES[before.step].lower()}"
        if scored_step.split != before.split:
            over += f", which are of other images ({before.split})"
        elif scored_step.step == "seeds":
            over += ", on fewer pixels"
    return Step(
        scored_step,
        TITLES[scored_step.step],
        summary.gain(scored_step),
        over,
        _note(scored_step),
        panels.get(scored_step.step),
    )


def _note(scored_step: ScoredStep) -> str:
    """What else is to say of a step."""
    scores, note = scored_step.scores, ""
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
    """(class, color or None for background, IoU per step of the ladder, AP50 per step that has
    instances).
    """
    names = list(dict.fromkeys(name for rows in summary.classes.values() for name in rows))
    foreground = [name for name in names if name != "background"]
    palette = dict(zip(foreground, overlays.palette(len(foreground)).tolist(), strict=True))
    tables = [summary.classes.get(scored_step.step, {}) for scored_step in summary.ladder]
    return [
        (
            name,
            css_color(palette[name]) if name in palette else None,
            [table.get(name, {}).get("iou") for table in tables],
            [
                table.get(name, {}).get("AP50")
                for table, scored_step in zip(tables, summary.ladder, strict=True)
                if scored_step.scores.get("AP50") is not None
            ],
        )
        for name in names
    ]


def _threshold_charts(summary: Summary) -> list[charts.Chart]:
    """mIoU over the threshold, of maps and of the walk."""
    names = {
        "cams": ("activation maps", "threshold"),
        "walk": ("pseudo-labels", "labels.background"),
    }
    made = []
    for step, (name, axis) in names.items():
        scored_step = summary.scored_step(step)
        threshold = scored_step.scores.get("threshold") if scored_step else None
        chosen = {} if threshold is None else {"mIoU": threshold}
        chart = charts.curve(
            f"mIoU of {name}", axis, {"mIoU": summary.curves.get(step, [])}, chosen
        )
        made += [chart] if chart else []
    return made
