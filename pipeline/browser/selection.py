"""What sorts and filters the grid: scores, gains over another run, failures, picked images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.browser.run import JUDGED, SCORED, Run

GAIN = "gain"
"""Prefix of the sort keys that compare two runs."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter and an order; the defaults show everything by id.

    text: part of the id; classes: names, all of which an image must have; failure: STEP:KIND, at
    least one of which it must have; picked: only images that are worth correcting; sort: "id" or a
    key of `sort_values`.
    """

    text: str = ""
    classes: tuple[str, ...] = ()
    split: str = ""
    failure: str = ""
    sort: str = "id"
    reverse: bool = False
    picked: bool = False


def read_filter(query: Mapping[str, str]) -> Filter:
    """Return the filter in a URL's query; what is missing keeps its default."""
    return Filter(
        query.get("q", ""),
        tuple(name for name in query.get("class", "").split("|") if name),
        query.get("split", ""),
        query.get("failure", ""),
        query.get("sort", "id"),
        query.get("reverse") == "1",
        query.get("picked") == "1",
    )


def failing(run: Run, failure: str) -> dict[str, int]:
    """Return the images with a failure STEP:KIND and how many they have; empty if unknown."""
    step, _, kind = failure.partition(":")
    rows = run.table(step, "failures").items() if step in JUDGED else ()
    return {name: int(row[kind]) for name, row in rows if row.get(kind)}


class Selection:
    """The images of the first run, to sort and filter by what is known of all runs.

    Other runs count by what they gain over the first; picked: ids of images worth correcting.
    """

    def __init__(self, runs: Sequence[Run], picked: Sequence[str] = ()) -> None:
        self.picked = frozenset(picked)
        self.run, self.others = runs[0], tuple(runs[1:])

    def names(self, filter_: Filter) -> list[str]:
        """Return the ids that pass the filter, worst first; those without a value last, by id."""
        names = self._filtered(filter_)
        if filter_.sort == "id":
            return names[::-1] if filter_.reverse else names
        values = self.sort_values(filter_)
        valued = [name for name in names if name in values]
        valued.sort(key=lambda name: -values[name] if filter_.reverse else values[name])
        return valued + [name for name in names if name not in values]

    def _filtered(self, filter_: Filter) -> list[str]:
        index, text = self.run.index, filter_.text.casefold()
        classes = {index.classes.index(name) for name in filter_.classes if name in index.classes}
        failed = failing(self.run, filter_.failure)
        return [
            name
            for name in sorted(index)
            if text in name.casefold()
            and filter_.split in ("", index[name].split)
            and classes <= set(index[name].tags)
            and (not filter_.failure or name in failed)
            and (not filter_.picked or name in self.picked)
        ]

    def sort_values(self, filter_: Filter) -> dict[str, float]:
        """Return what the filter sorts by, id -> value in [-1,1]; empty for an unknown key."""
        kind, _, rest = filter_.sort.partition(":")
        if kind != GAIN:
            return self.run.miou(kind)
        step, _, name = rest.partition(":")
        before = self.run.miou(step)
        after = next((run.miou(step) for run in self.others if run.name == name), {})
        return {name: after[name] - before[name] for name in after if name in before}

    def titles(self) -> dict[str, str]:
        """Return the sort keys with their titles."""
        scored = [step for step in SCORED if self.run.miou(step)]
        gains = {
            f"{GAIN}:{step}:{run.name}": f"gain of {step} in {run.name}"
            for run in self.others
            for step in scored
            if run.miou(step)
        }
        steps = {step: f"mIoU of {step}" for step in scored}
        return {"id": "id", **steps, **gains}
