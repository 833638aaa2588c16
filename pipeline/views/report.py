"""The report: one HTML page that needs no network, no script and no second file."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.views import charts, overlays
from pipeline.views.sheets import Key

STEPS = {"cams": "Activation maps", "labels": "Pseudo-labels", "predictions": "Final model"}
"""Titles of the scored steps, in the order of the pipeline."""

Shares = list[float | None]


@dataclass(frozen=True, slots=True)
class Example:
    """One picture of the report.

    panels: title -> uint8 [h,w,3] (`sheets.panels`); scores: name -> ratio or None; keys: coloured class
    names (`sheets.legend`).
    """

    id: str
    panels: Mapping[str, np.ndarray]
    scores: Mapping[str, float | None] = field(default_factory=dict)
    keys: Sequence[Key] = ()


def render(
    *,
    title: str,
    scores: Mapping[str, Mapping[str, Any]],
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    rows: Sequence[Example],
    worst: Mapping[str, Sequence[Example]],
    parameters: Mapping[str, Any],
    confusions: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> str:
    """The whole page as HTML text; the same bytes for the same input, every name escaped.

    scores: step -> what the scores stage writes as JSON (`miou`, `pixel_accuracy`, `precision`, `recall`,
    `iou` by class; for maps `best_miou`, `best_threshold`; for pseudo-labels `instance` with `AP50` and so
    on; anything may be missing); curves: name -> csv rows, the first column is the x axis; rows: example
    pictures; worst: step -> pictures, worst first; parameters: nested, shown folded; confusions: step -> csv
    rows `actual`, `predicted`, `pixels`.
    """
    from jinja2 import Environment, StrictUndefined

    source = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "image": data_uri, "colour": _css_colour}
    steps = _in_order(scores)
    drawn = {name: charts.charts(table) for name, table in curves.items()}
    counted = _in_order(confusions or {})
    return environment.from_string(source).render(
        title=title,
        names=STEPS,
        steps=steps,
        cards=_cards(steps),
        classes=_class_rows(steps),
        charts={name: made for name, made in drawn.items() if made},
        examples=rows,
        worst={step: found for step, found in _in_order(worst).items() if found},
        heat={step: charts.heat_map(table) for step, table in counted.items() if table},
        box=charts,
        parameters=parameters,
    )


def percent(value: float | None) -> str:
    """A ratio as a percentage with one digit; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f}"


def data_uri(panel: np.ndarray) -> str:
    """A uint8 RGB panel as a WebP image inside the page."""
    file = io.BytesIO()
    Image.fromarray(panel).save(file, "WEBP", quality=84, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _css_colour(colour: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _in_order(steps: Mapping[str, Any]) -> dict[str, Any]:
    """Known steps in the order of the pipeline, then the others as they come."""
    return {step: steps[step] for step in STEPS if step in steps} | dict(steps)


def _cards(steps: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, float]]:
    """The numbers to see first: how good maps, pseudo-labels and the final model are."""
    found = [(f"{STEPS.get(step, step)}: mIoU", values.get("miou")) for step, values in steps.items()]
    for step, values in steps.items():
        found.append((f"{STEPS.get(step, step)}: AP50", values.get("instance", {}).get("AP50")))
    return [(name, value) for name, value in found if value is not None]


def _class_rows(steps: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str | None, Shares, Shares]]:
    """(class, colour or None for background, IoU per step, AP50 per step that has instances)."""
    names = list(dict.fromkeys(name for values in steps.values() for name in values.get("iou", {})))
    foreground = [name for name in names if name != "background"]
    palette = dict(zip(foreground, overlays.palette(len(foreground)).tolist(), strict=True))
    ious = [values["iou"] for values in steps.values() if "iou" in values]
    aps = [values["instance"].get("AP50_per_class", {}) for values in steps.values() if "instance" in values]
    return [
        (
            name,
            _css_colour(palette[name]) if name in palette else None,
            [one.get(name) for one in ious],
            [one.get(name) for one in aps],
        )
        for name in names
    ]
