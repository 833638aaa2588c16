"""What a page shows, and its URL: filter and order of the images, layers and settings of a view.

A reload, or a link sent to somebody else, shows the same again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeVar
from urllib.parse import quote, urlencode

from pipeline.browser.layers import LAYERS
from pipeline.browser.sample import STEPS, WalkSettings

Default = TypeVar("Default", float, None)
PAIRS = {
    f"{one}-{other}": f"{STEPS[one]} and {STEPS[other]}" for one, other in combinations(STEPS, 2)
}
"""Pairs of steps that can be compared, and their titles."""
DISAGREEMENT = "disagreement"
"""The sort key that depends on the filter's pair of steps."""
SLIDERS = {
    "threshold": (0.0, 1.0, 0.01),
    "beta": (0.5, 40.0, 0.5),
    "steps": (0, 512, 8),
    "background": (0.0, 1.0, 0.01),
}
"""Setting -> lower end, upper end and step of its slider."""
FIRST_LAYERS = ("labels", "cams", "seeds", "predictions", "truth")
"""An image's page first shows the first of these layers that exists."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter and an order; the defaults show everything by id.

    text: part of the id; classes: names, all of which an image must have; sort: "id" or a key of
    SortKeys.values; differ: the pair of steps that is compared; show: layer on the thumbnails.
    """

    text: str = ""
    classes: tuple[str, ...] = ()
    split: str = ""
    sort: str = "id"
    reverse: bool = False
    differ: str = "seeds-labels"
    show: str = "image"


@dataclass(frozen=True, slots=True)
class ViewState:
    """What an image's page shows.

    layers: layer -> opacity in [0,1], None if none was chosen yet; image: opacity of the image;
    bare: whether the layers are hidden for the moment; panes: names of the runs shown side by side,
    empty for all.
    """

    layers: Mapping[str, float] | None = None
    image: float = 1.0
    bare: bool = False
    panes: tuple[str, ...] = ()
    settings: WalkSettings = field(default_factory=WalkSettings)


def read_filter(parts: Mapping[str, str]) -> Filter:
    """Return the filter in a URL's query; what is missing or invalid keeps its default."""
    new = Filter()
    return Filter(
        text=parts.get("q", ""),
        classes=tuple(name for name in parts.get("class", "").split("|") if name),
        split=parts.get("split", ""),
        sort=parts.get("sort", new.sort),
        reverse=parts.get("reverse") == "1",
        differ=differ if (differ := parts.get("differ")) in PAIRS else new.differ,
        show=parts.get("show", new.show),
    )


def write_filter(filter_: Filter) -> dict[str, str]:
    """Return the filter as parts of a URL's query, without defaults."""
    parts = {
        "q": filter_.text,
        "class": "|".join(filter_.classes),
        "split": filter_.split,
        "sort": filter_.sort,
        "reverse": "1" if filter_.reverse else "",
        "differ": filter_.differ if filter_.sort == DISAGREEMENT else "",
        "show": filter_.show,
    }
    return {key: value for key, value in parts.items() if read_filter({key: value}) != Filter()}


def read_view(parts: Mapping[str, str]) -> ViewState:
    """Return the view in a URL's query; unknown layers and values out of range are dropped."""
    layers = None
    if "layers" in parts:
        pairs = (part.partition(":") for part in parts["layers"].split(",") if part)
        layers = {key: _number(value, (0, 1), 1.0) for key, _, value in pairs if key in LAYERS}
    return ViewState(
        layers,
        _number(parts.get("image"), (0, 1), 1.0),
        parts.get("bare") == "1",
        tuple(name for name in parts.get("panes", "").split("|") if name),
        read_settings(parts),
    )


def read_settings(parts: Mapping[str, str]) -> WalkSettings:
    """Return the settings in a URL's query; values out of range are dropped."""
    chosen = {key: _number(parts.get(key), ends, None) for key, (*ends, _) in SLIDERS.items()}
    steps, class_ = chosen.pop("steps"), parts.get("map", "")
    return WalkSettings(
        class_=int(class_) if class_.isdecimal() else None,
        steps=None if steps is None else round(steps),
        **chosen,
    )


def write_settings(settings: WalkSettings) -> dict[str, str]:
    """Return the settings as parts of a URL's query, without the run's own."""
    written = {} if settings.class_ is None else {"map": str(settings.class_)}
    values = {key: getattr(settings, key) for key in SLIDERS}
    return written | {key: f"{value:g}" for key, value in values.items() if value is not None}


def write_view(view: ViewState) -> dict[str, str]:
    """Return the view as parts of a URL's query, without defaults."""
    written = write_settings(view.settings)
    if view.layers is not None:
        written["layers"] = ",".join(f"{key}:{opacity:g}" for key, opacity in view.layers.items())
    if view.image != 1:
        written["image"] = f"{view.image:g}"
    if view.bare:
        written["bare"] = "1"
    if view.panes:
        written["panes"] = "|".join(view.panes)
    return written


def image_url(name: str, filter_: Filter, view: ViewState) -> str:
    """Return the URL of an image's page."""
    return f"/image/{quote(name, safe='')}{_query(write_filter(filter_) | write_view(view))}"


def grid_url(filter_: Filter, view: ViewState, page: int = 1) -> str:
    """Return the URL of the grid, which passes the view on to the images' pages."""
    parts = write_filter(filter_) | write_view(view)
    return "/" + _query(parts | ({"page": str(page)} if page > 1 else {}))


def _query(parts: Mapping[str, str]) -> str:
    return f"?{urlencode(parts, quote_via=quote, safe=':,|')}" if parts else ""


def _number(text: str | None, limits: Sequence[float], default: Default) -> float | Default:
    try:
        value = float(text or "")
    except ValueError:
        return default
    return value if limits[0] <= value <= limits[1] else default
