"""What a page shows, as the part of its address after the question mark: a reload, or a link sent
on, shows the same again.

Which images the grid shows, and in which order.

What the images of the grid can be sorted and filtered by, and the sequence that a query makes of
them.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import quote, urlencode

from pipeline.browser.disagreements import Disagreements, Progress
from pipeline.browser.layers import LAYERS
from pipeline.browser.live_walk import Settings
from pipeline.browser.run import SCORED, Run
from pipeline.browser.sample import STEPS
from pipeline.data.index import ImageEntry, Index
from pipeline.errors import UserError
from pipeline.views.report_data import TITLES

Values = Mapping[str, float]
DIFFER = "disagreement"
"""The measure that depends on which two steps are compared."""


@dataclass(frozen=True, slots=True)
class Query:
    """A filter and an order; the defaults show everything by id.

    text: part of the id; classes: names, all of which an image must have; sort: "id" or a name of
    Measures.values; a range keeps images whose value of `by` lies in [low, high], in percent.
    """

    text: str = ""
    classes: tuple[str, ...] = ()
    split: str = ""
    sort: str = "id"
    reverse: bool = False
    by: str = ""
    low: float = 0
    high: float = 100
    differ: tuple[str, str] = ("seeds", "labels")
    show: str = "image"


@dataclass(frozen=True, slots=True)
class Measures:
    """Numbers by image that can be sorted and filtered by: name -> id -> value in 0..1.

    falling: names whose high values are the bad ones.
    """

    values: Mapping[str, Values] = field(default_factory=dict)
    falling: frozenset[str] = frozenset()


def select(index: Index, query: Query, measures: Measures) -> list[str]:
    """Ids that pass the filter, worst first; images without a value come last, in the order of
    their ids.
    """
    classes = {index.classes.index(name) for name in query.classes if name in index.classes}
    limits = measures.values.get(query.by, {}) if query.by else None
    names = [
        name
        for name, image in index.items()
        if _matches(image, query, classes) and (limits is None or _within(limits.get(name), query))
    ]
    return ordered(names, query, measures)


def ordered(names: Iterable[str], query: Query, measures: Measures) -> list[str]:
    """The ids in the order of the query."""
    names = sorted(names)
    if query.sort == "id":
        return names[::-1] if query.reverse else names
    values = measures.values.get(query.sort, {})
    down = (query.sort in measures.falling) != query.reverse
    valued = [name for name in names if name in values]
    valued.sort(key=lambda name: -values[name] if down else values[name])
    return valued + [name for name in names if name not in values]


def near(names: Sequence[str], wanted: str, count: int = 6) -> list[str]:
    """Ids most like one that is not there: those that contain it, then those spelt alike."""
    inside = [name for name in names if wanted and (wanted in name or name in wanted)][:count]
    alike = difflib.get_close_matches(wanted, _alike(names, wanted), count, 0.5)
    return list(dict.fromkeys([*inside, *alike]))[:count]


def _alike(names: Sequence[str], wanted: str, most: int = 2000) -> list[str]:
    """Few enough of the names to compare letter by letter: those of about its length that share
    most characters with it.
    """
    letters = set(wanted)
    close = [name for name in names if abs(len(name) - len(wanted)) <= 4]
    return sorted(close, key=lambda name: -len(letters & set(name)))[:most]


def _matches(image: ImageEntry, query: Query, classes: set[int]) -> bool:
    return (
        (not query.text or query.text.casefold() in image.id.casefold())
        and (not query.split or image.split == query.split)
        and classes <= set(image.tags)
    )


def _within(value: float | None, query: Query) -> bool:
    """Whether a value lies in the query's range; without a value only where the range is
    everything.
    """
    if value is None:
        return query.low <= 0 and query.high >= 100
    return query.low <= 100 * value <= query.high


Otherwise = TypeVar("Otherwise", float, None)
LIMITS = {
    "threshold": (0.0, 1.0),
    "beta": (0.1, 100.0),
    "steps": (0, 4096),
    "background": (0.0, 1.0),
}
"""Settings and the range in which they may be moved."""
FIRST = ("labels", "cams", "seeds", "predictions", "truth")
"""Which layer an image's page shows if none was chosen: the first of these that there is."""


@dataclass(frozen=True, slots=True)
class View:
    """What an image's page shows: layer -> opacity in 0..1 (None: none chosen yet), the image's own
    opacity, and settings.

    bare: whether the image is shown without its layers for the moment; panes: names of the runs
    beside each other, none for all.
    """

    layers: Mapping[str, float] | None = None
    image: float = 1.0
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
    """What an address says of an image's page; layers that do not exist and values out of range are
    left out.
    """
    layers = None
    if "layers" in given:
        parts = (part.partition(":") for part in given["layers"].split(",") if part)
        layers = {key: _number(value, (0, 1), 1.0) for key, _, value in parts if key in LAYERS}
    chosen = {key: _setting(given.get(key), *limits) for key, limits in LIMITS.items()}
    class_ = given.get("map", "")
    return View(
        layers,
        _number(given.get("image"), (0, 1), 1.0),
        given.get("bare") == "1",
        tuple(name for name in given.get("panes", "").split("|") if name),
        Settings(class_=int(class_) if class_.isdecimal() else None, **chosen),  # type: ignore[arg-type]
    )


def write_view(view: View) -> dict[str, str]:
    """A page's view as its address has it, without what is as in a new one."""
    settings = view.settings
    written = {} if settings.class_ is None else {"map": str(settings.class_)}
    written |= {
        key: f"{value:g}" for key in LIMITS if (value := getattr(settings, key)) is not None
    }
    if view.layers is not None:
        written["layers"] = ",".join(f"{key}:{opacity:g}" for key, opacity in view.layers.items())
    if view.image != 1:
        written["image"] = f"{view.image:g}"
    if view.bare:
        written["bare"] = "1"
    if view.panes:
        written["panes"] = "|".join(view.panes)
    return written


def image_address(name: str, query: Query, view: View) -> str:
    """The address of an image's page."""
    return f"/image/{quote(name, safe='')}{_after(write_query(query) | write_view(view))}"


def grid_address(query: Query, view: View, page: int = 1) -> str:
    """The address of the grid; it hands the view on to the images."""
    return "/" + _after(
        write_query(query) | write_view(view) | ({"page": str(page)} if page > 1 else {})
    )


def _after(parts: Mapping[str, str]) -> str:
    return f"?{urlencode(parts, quote_via=quote, safe=':,|')}" if parts else ""


def _setting(text: str | None, low: float, high: float) -> float | None:
    """A setting if the text is one in its range, else None; of integers' kind where the limits are."""
    value = _number(text, (low, high), None)
    return value if value is None or isinstance(low, float) else round(value)


def _number(
    text: str | None, limits: tuple[float, float], otherwise: Otherwise
) -> float | Otherwise:
    try:
        value = float(text or "")
    except ValueError:
        return otherwise
    return value if limits[0] <= value <= limits[1] else otherwise


GAIN = "gain"


class Selection:
    """The images of the first run; scores of all runs, of which the first counts and the others are
    compared with it.
    """

    def __init__(self, runs: Sequence[Run], disagreements: Disagreements) -> None:
        self.run, self.others, self._disagreements = runs[0], tuple(runs[1:]), disagreements

    def names(self, query: Query) -> list[str]:
        """The ids that a query asks for, in its order."""
        return select(self.run.index, query, self.measures(query))

    def measures(self, query: Query) -> Measures:
        """Numbers by image: mIoU by step, what another run gained, and the disagreement if the
        query asks for it.
        """
        values: dict[str, Values] = dict(self.scores())
        for run in self.others:
            for step in SCORED:
                before, after = values.get(step, {}), _miou(run, step)
                gains = {name: after[name] - before[name] for name in after if name in before}
                if gains:
                    values[f"{GAIN}:{step}:{run.name}"] = gains
        if DIFFER in (query.sort, query.by):
            # a copy, as the computation goes on adding to it
            values[DIFFER] = dict(self.progress(query).values)
        return Measures(values, frozenset({DIFFER}))

    def scores(self) -> Mapping[str, Values]:
        """mIoU by image of every step that the first run has scores of."""
        return {step: values for step in SCORED if (values := _miou(self.run, step))}

    def progress(self, query: Query) -> Progress:
        """How far the disagreement that a query asks for has come."""
        return self._disagreements.ask(self.run, *query.differ)

    def titles(self) -> dict[str, str]:
        """What can be sorted by, and how it is called."""
        titles = {"id": "id"} | {step: f"mIoU of {TITLES[step].lower()}" for step in self.scores()}
        for name in self.measures(Query()).values:
            kind, _, rest = name.partition(":")
            if kind == GAIN:
                step, _, run = rest.partition(":")
                titles[name] = f"gain of {TITLES[step].lower()}, {run}"
        return titles | {DIFFER: "disagreement"}

    def problems(self) -> list[str]:
        """What is wrong with artifacts and score tables of any run, a line each."""
        found = []
        for run in (self.run, *self.others):
            found += [
                run.problem(key)
                for key in dict.fromkeys([*run.places.artifacts, *run.places.lacking])
            ]
            found += [_table_problem(run, step) for step in SCORED]
        return list(dict.fromkeys(text for text in found if text))


def _miou(run: Run, step: str) -> Values:
    """mIoU by image; none for a damaged table, which `problems` names."""
    return {} if _table_problem(run, step) else run.miou(step)


def _table_problem(run: Run, step: str) -> str | None:
    try:
        run.miou(step)
    except UserError as error:
        return str(error)
    return None
