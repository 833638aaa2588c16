"""What a page shows, and its URL: filter and order of the images, layers and settings of a view.

A reload, or a link sent to somebody else, shows the same again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote, urlencode

from pipeline.browser.disagreement import PAIRS, DisagreementJob, Progress
from pipeline.browser.layers import LAYERS
from pipeline.browser.live_walk import WalkSettings
from pipeline.browser.run import SCORED, Run
from pipeline.data.index import ImageEntry, Index
from pipeline.errors import UserError
from pipeline.views.report_data import TITLES

Values = Mapping[str, float]
Default = TypeVar("Default", float, None)
DISAGREEMENT, GAIN = "disagreement", "gain"
"""Sort keys that depend on the filter's two steps, and prefix of those that compare two runs."""
LIMITS = {
    "threshold": (0.0, 1.0),
    "beta": (0.1, 100.0),
    "steps": (0, 4096),
    "background": (0.0, 1.0),
}
"""Setting -> the range of its slider."""
FIRST_LAYERS = ("labels", "cams", "seeds", "predictions", "truth")
"""An image's page first shows the first of these layers that exists."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter and an order; the defaults show everything by id.

    text: part of the id; classes: names, all of which an image must have; sort: "id" or a key of
    SortKeys.values; by, low, high: keeps images whose value of `by` lies in [low, high] percent;
    differ: the two steps whose disagreement is computed; show: layer on the thumbnails.
    """

    text: str = ""
    classes: tuple[str, ...] = ()
    split: str = ""
    sort: str = "id"
    reverse: bool = False
    by: str = ""
    low: float = 0
    high: float = 100
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
        by=parts.get("by", ""),
        low=_number(parts.get("low"), (0, 100), new.low),
        high=_number(parts.get("high"), (0, 100), new.high),
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
        "by": filter_.by,
        "low": f"{filter_.low:g}",
        "high": f"{filter_.high:g}",
        "differ": filter_.differ if DISAGREEMENT in (filter_.sort, filter_.by) else "",
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
    chosen = {key: _number(parts.get(key), limits, None) for key, limits in LIMITS.items()}
    steps, class_ = chosen.pop("steps"), parts.get("map", "")
    return WalkSettings(
        class_=int(class_) if class_.isdecimal() else None,
        steps=None if steps is None else round(steps),
        **chosen,
    )


def write_settings(settings: WalkSettings) -> dict[str, str]:
    """Return the settings as parts of a URL's query, without the run's own."""
    written = {} if settings.class_ is None else {"map": str(settings.class_)}
    values = {key: getattr(settings, key) for key in LIMITS}
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


def _number(text: str | None, limits: tuple[float, float], default: Default) -> float | Default:
    try:
        value = float(text or "")
    except ValueError:
        return default
    return value if limits[0] <= value <= limits[1] else default


@dataclass(frozen=True, slots=True)
class SortKeys:
    """Numbers to sort and filter by: key -> id -> value in [0,1].

    descending: keys whose high values are the bad ones.
    """

    values: Mapping[str, Values] = field(default_factory=dict)
    descending: frozenset[str] = frozenset()


def select(index: Index, filter_: Filter, keys: SortKeys) -> list[str]:
    """Return the ids that pass the filter, worst first; those without a value come last, by id."""
    classes = {index.classes.index(name) for name in filter_.classes if name in index.classes}
    limits = keys.values.get(filter_.by, {}) if filter_.by else None
    names = sorted(
        name
        for name, image in index.items()
        if _matches(image, filter_, classes)
        and (limits is None or _within(limits.get(name), filter_))
    )
    if filter_.sort == "id":
        return names[::-1] if filter_.reverse else names
    values = keys.values.get(filter_.sort, {})
    down = (filter_.sort in keys.descending) != filter_.reverse
    valued = [name for name in names if name in values]
    valued.sort(key=lambda name: -values[name] if down else values[name])
    return valued + [name for name in names if name not in values]


def _matches(image: ImageEntry, filter_: Filter, classes: set[int]) -> bool:
    return (
        (not filter_.text or filter_.text.casefold() in image.id.casefold())
        and (not filter_.split or image.split == filter_.split)
        and classes <= set(image.tags)
    )


def _within(value: float | None, filter_: Filter) -> bool:
    """Whether a value is in the filter's range; a missing one only if the range is everything."""
    if value is None:
        return filter_.low <= 0 and filter_.high >= 100
    return filter_.low <= 100 * value <= filter_.high


class Selection:
    """The images of the first run, to sort and filter by scores of all runs.

    Other runs count by what they gain over the first.
    """

    def __init__(self, runs: Sequence[Run], job: DisagreementJob) -> None:
        self.run, self.others, self._job = runs[0], tuple(runs[1:]), job

    def names(self, filter_: Filter) -> list[str]:
        """Return the ids that pass the filter, in its order."""
        return select(self.run.index, filter_, self.keys(filter_))

    def keys(self, filter_: Filter) -> SortKeys:
        """Return mIoU by step, gains of other runs, and the disagreement if it is used."""
        values: dict[str, Values] = {
            step: miou for step in SCORED if (miou := _miou(self.run, step))
        }
        for run in self.others:
            for step in SCORED:
                before, after = values.get(step, {}), _miou(run, step)
                gains = {name: after[name] - before[name] for name in after if name in before}
                if gains:
                    values[f"{GAIN}:{step}:{run.name}"] = gains
        if DISAGREEMENT in (filter_.sort, filter_.by):
            # a copy, as the job keeps adding to it
            values[DISAGREEMENT] = dict(self.progress(filter_).values)
        return SortKeys(values, frozenset({DISAGREEMENT}))

    def progress(self, filter_: Filter) -> Progress:
        """Return how far the disagreement of the filter's two steps is."""
        return self._job.request(self.run, *filter_.differ.split("-"))

    def titles(self) -> dict[str, str]:
        """Return the sort keys with their titles."""
        titles = {"id": "id"}
        for key in self.keys(Filter()).values:
            kind, _, rest = key.partition(":")
            step, _, run = rest.partition(":")
            titles[key] = (
                f"gain of {TITLES[step].lower()}, {run}"
                if kind == GAIN
                else f"mIoU of {TITLES[key].lower()}"
            )
        return titles | {DISAGREEMENT: "disagreement"}

    def problems(self) -> list[str]:
        """Return what is wrong with artifacts and score tables of any run, a line each."""
        found: list[str | None] = []
        for run in (self.run, *self.others):
            keys = dict.fromkeys([*run.paths.artifacts, *run.paths.missing])
            found += [run.problem(key) for key in keys]
            found += [_table_problem(run, step) for step in SCORED]
        return list(dict.fromkeys(text for text in found if text))


def _miou(run: Run, step: str) -> Values:
    """Return mIoU by image; empty for a damaged table, which `problems` names."""
    return {} if _table_problem(run, step) else run.miou(step)


def _table_problem(run: Run, step: str) -> str | None:
    try:
        run.miou(step)
    except UserError as error:
        return str(error)
    return None
