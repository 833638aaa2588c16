"""Pages from templates: one HTML file that needs no network, no script and no second file."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.views import charts

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
        "colour": css_colour,
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


def css_colour(colour: Sequence[int]) -> str:
    """#rrggbb of three values of 0..255."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
