"""What sorts and filters the grid: scores, gains over another run, failures, disagreement."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from threading import Lock

from pipeline.browser.run import JUDGED, SCORED, Run
from pipeline.browser.sample import STEPS, Sample, difference
from pipeline.errors import UserError

PAIRS = {f"{one}-{other}": f"{one} and {other}" for one, other in combinations(STEPS, 2)}
"""Pairs of steps that can be compared, and their titles."""
GAIN, DISAGREEMENT = "gain", "disagreement"
"""Prefix of the sort keys that compare two runs; the key that depends on a pair of steps."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter and an order; the defaults show everything by id.

    text: part of the id; classes: names, all of which an image must have; failure: STEP:KIND, at
    least one of which it must have; picked: only images that are worth correcting; sort: "id" or a
    key of `sort_values`; differ: the pair of steps that is compared.
    """

    text: str = ""
    classes: tuple[str, ...] = ()
    split: str = ""
    failure: str = ""
    sort: str = "id"
    reverse: bool = False
    differ: str = "seeds-labels"
    picked: bool = False


def read_filter(query: Mapping[str, str]) -> Filter:
    """Return the filter in a URL's query; what is missing or invalid keeps its default."""
    differ = query.get("differ", "")
    return Filter(
        query.get("q", ""),
        tuple(name for name in query.get("class", "").split("|") if name),
        query.get("split", ""),
        query.get("failure", ""),
        query.get("sort", "id"),
        query.get("reverse") == "1",
        differ if differ in PAIRS else Filter().differ,
        query.get("picked") == "1",
    )


@dataclass(slots=True)
class Progress:
    """The disagreement by image so far, how many images are done, and the last problem."""

    total: int
    done: int = 0
    values: dict[str, float] = field(default_factory=dict)
    problem: str | None = None


class Disagreements:
    """Shares of differing pixels by run and pair of steps, computed while a page waits for them."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Progress] = {}
        self._lock = Lock()

    def progress(self, run: Run, pair: str) -> Progress:
        """Return what is known of a pair of steps, a key of PAIRS."""
        key = run.name, run.stamp(), pair
        return self._found.setdefault(key, Progress(len(run.index)))

    def advance(self, run: Run, pair: str, seconds: float = 0.25) -> None:
        """Compare the steps of further images for a while; pages that call this share the work."""
        with self._lock:
            progress, end = self.progress(run, pair), time.monotonic() + seconds
            for name in list(run.index)[progress.done :]:
                if time.monotonic() > end:
                    return
                try:
                    value = disagreement(Sample(run, name), *pair.split("-"))
                except (UserError, KeyError) as error:
                    progress.problem, value = str(error), None
                if value is not None:
                    progress.values[name] = value
                progress.done += 1


def disagreement(sample: Sample, one: str, other: str) -> float | None:
    """Return the share of pixels on which two steps differ; None if the image lacks one of them."""
    if not (sample.has(one) and sample.has(other)):
        return None
    return difference(sample.label_map(one), sample.label_map(other))


def available_pairs(run: Run) -> dict[str, str]:
    """Return the pairs of steps that a run has both of, with their titles."""
    has_truth = any(image.semantic is not None for image in run.index.values())
    steps = {step for step in STEPS if run.exists(step) or (step == "truth" and has_truth)}
    return {pair: title for pair, title in PAIRS.items() if set(pair.split("-")) <= steps}


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
        self.run, self.others, self.disagreements = runs[0], tuple(runs[1:]), Disagreements()

    def names(self, filter_: Filter) -> list[str]:
        """Return the ids that pass the filter, worst first; those without a value last, by id."""
        names = self._filtered(filter_)
        if filter_.sort == "id":
            return names[::-1] if filter_.reverse else names
        values = self.sort_values(filter_)
        down = (filter_.sort == DISAGREEMENT) != filter_.reverse
        valued = [name for name in names if name in values]
        valued.sort(key=lambda name: -values[name] if down else values[name])
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
        if kind == DISAGREEMENT:
            # a copy, as another page may add to it
            return dict(self.disagreements.progress(self.run, filter_.differ).values)
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
        return {"id": "id", **steps, **gains, DISAGREEMENT: "disagreement"}
