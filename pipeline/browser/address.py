"""What a page shows, as the part of its address after the question mark: a reload, or a link sent on, shows the same again."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import quote, urlencode

from pipeline.browser.layers import LAYERS
from pipeline.browser.listing import DIFFER, Query
from pipeline.browser.shown import STEPS
from pipeline.browser.walks import Settings

Otherwise = TypeVar("Otherwise", float, None)
LIMITS = {"threshold": (0.0, 1.0), "beta": (0.1, 100.0), "steps": (0, 4096), "background": (0.0, 1.0)}
"""Settings and the range in which they may be moved."""
FIRST = ("labels", "cams", "seeds", "predictions", "truth")
"""Which layer a picture's page shows if none was chosen: the first of these that there is."""


@dataclass(frozen=True, slots=True)
class View:
    """What a picture's page shows: layer -> opacity in 0..1 (None: none chosen yet), the picture's own opacity, and settings.

    bare: whether the picture is shown without its layers for the moment; panes: names of the runs beside each other, none for all.
    """

    layers: Mapping[str, float] | None = None
    picture: float = 1.0
    bare: bool = False
    panes: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)


def read_query(given: Mapping[str, str]) -> Query:
    """The filter and order in an address; what it does not say, or cannot mean, is as in a new one."""
    query = Query()
    pair = tuple(given.get("differ", "").split("-"))
    return replace(
        query,
        text=given.get("q", ""),
        classes=tuple(name for name in given.get("class", "").split("|") if name),
        split=given.get("split", ""),
        sort=given.get("sort", "id"),
        reverse=given.get("reverse") == "1",
        by=given.get("by", ""),
        low=_number(given.get("low"), (0, 100), query.low),
        high=_number(given.get("high"), (0, 100), query.high),
        differ=(pair[0], pair[1]) if len(pair) == 2 and set(pair) <= set(STEPS) else query.differ,
        show=given.get("show", query.show),
    )


def write_query(query: Query) -> dict[str, str]:
    """The filter and order as an address has them, without what is as in a new one."""
    whole = {
        "q": query.text,
        "class": "|".join(query.classes),
        "split": query.split,
        "sort": query.sort,
        "reverse": "1" if query.reverse else "",
        "by": query.by,
        "low": f"{query.low:g}",
        "high": f"{query.high:g}",
        "differ": "-".join(query.differ) if DIFFER in (query.sort, query.by) else "",
        "show": query.show,
    }
    return {key: value for key, value in whole.items() if read_query({key: value}) != Query()}


def read_view(given: Mapping[str, str]) -> View:
    """What an address says of a picture's page; layers that do not exist and values out of range are left out."""
    layers = None
    if "layers" in given:
        parts = (part.partition(":") for part in given["layers"].split(",") if part)
        layers = {key: _number(value, (0, 1), 1.0) for key, _, value in parts if key in LAYERS}
    chosen = {key: _setting(given.get(key), *limits) for key, limits in LIMITS.items()}
    class_ = given.get("map", "")
    return View(
        layers,
        _number(given.get("picture"), (0, 1), 1.0),
        given.get("bare") == "1",
        tuple(name for name in given.get("panes", "").split("|") if name),
        Settings(class_=int(class_) if class_.isdecimal() else None, **chosen),  # type: ignore[arg-type]
    )


def write_view(view: View) -> dict[str, str]:
    """A page's view as its address has it, without what is as in a new one."""
    settings = view.settings
    written = {} if settings.class_ is None else {"map": str(settings.class_)}
    written |= {key: f"{value:g}" for key in LIMITS if (value := getattr(settings, key)) is not None}
    if view.layers is not None:
        written["layers"] = ",".join(f"{key}:{opacity:g}" for key, opacity in view.layers.items())
    if view.picture != 1:
        written["picture"] = f"{view.picture:g}"
    if view.bare:
        written["bare"] = "1"
    if view.panes:
        written["panes"] = "|".join(view.panes)
    return written


def picture_address(name: str, query: Query, view: View) -> str:
    """The address of a picture's page."""
    return f"/picture/{quote(name, safe='')}{_after(write_query(query) | write_view(view))}"


def grid_address(query: Query, view: View, page: int = 1) -> str:
    """The address of the grid; it hands the view on to the pictures."""
    return "/" + _after(write_query(query) | write_view(view) | ({"page": str(page)} if page > 1 else {}))


def _after(parts: Mapping[str, str]) -> str:
    return f"?{urlencode(parts, quote_via=quote, safe=':,|')}" if parts else ""


def _setting(text: str | None, low: float, high: float) -> float | None:
    """A setting if the text is one in its range, else None; of integers' kind where the limits are."""
    value = _number(text, (low, high), None)
    return value if value is None or isinstance(low, float) else round(value)


def _number(text: str | None, limits: tuple[float, float], otherwise: Otherwise) -> float | Otherwise:
    try:
        value = float(text or "")
    except ValueError:
        return otherwise
    return value if limits[0] <= value <= limits[1] else otherwise
