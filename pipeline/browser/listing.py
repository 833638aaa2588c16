"""Which pictures the grid shows, and in which order."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.datasets.index import Index, Picture

Values = Mapping[str, float]
DIFFER = "disagreement"
"""The measure that depends on which two steps are compared."""


@dataclass(frozen=True, slots=True)
class Query:
    """A filter and an order; the defaults show everything by id.

    text: part of the id; classes: names, all of which a picture must have; sort: "id" or a name of Measures.values; a range
    keeps pictures whose value of `by` lies in [low, high], in percent.
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
    show: str = "picture"


@dataclass(frozen=True, slots=True)
class Measures:
    """Numbers by picture that can be sorted and filtered by: name -> id -> value in 0..1.

    falling: names whose high values are the bad ones.
    """

    values: Mapping[str, Values] = field(default_factory=dict)
    falling: frozenset[str] = frozenset()


def select(index: Index, query: Query, measures: Measures) -> list[str]:
    """Ids that pass the filter, worst first; pictures without a value come last, in the order of their ids."""
    classes = {index.classes.index(name) for name in query.classes if name in index.classes}
    limits = measures.values.get(query.by, {}) if query.by else None
    names = [
        name
        for name, picture in index.items()
        if _matches(picture, query, classes) and (limits is None or _within(limits.get(name), query))
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
    """Few enough of the names to compare letter by letter: those of about its length that share most characters with it."""
    letters = set(wanted)
    close = [name for name in names if abs(len(name) - len(wanted)) <= 4]
    return sorted(close, key=lambda name: -len(letters & set(name)))[:most]


def _matches(picture: Picture, query: Query, classes: set[int]) -> bool:
    return (
        (not query.text or query.text.casefold() in picture.id.casefold())
        and (not query.split or picture.split == query.split)
        and classes <= set(picture.tags)
    )


def _within(value: float | None, query: Query) -> bool:
    """Whether a value lies in the query's range; without a value only where the range is everything."""
    if value is None:
        return query.low <= 0 and query.high >= 100
    return query.low <= 100 * value <= query.high
