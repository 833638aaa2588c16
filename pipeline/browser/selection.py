"""What sorts and filters the grid: scores, gains over another run, disagreement of two steps."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

from pipeline.browser.run import SCORED, Run
from pipeline.browser.sample import STEPS, Sample, difference
from pipeline.browser.state import DISAGREEMENT, PAIRS, Filter
from pipeline.data.index import ImageEntry, Index
from pipeline.errors import UserError
from pipeline.views.report_data import TITLES

Values = Mapping[str, float]
GAIN = "gain"
"""Prefix of the sort keys that compare two runs."""


@dataclass(slots=True)
class Progress:
    """The disagreement by image so far, how many images are done, and the last problem."""

    total: int
    done: int = 0
    values: dict[str, float] = field(default_factory=dict)
    problem: str | None = None

    @property
    def finished(self) -> bool:
        """Whether every image is done."""
        return self.done >= self.total


class Disagreements:
    """Shares of differing pixels by run and pair of steps, computed while a page waits for them."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Progress] = {}
        self._lock = Lock()

    def progress(self, run: Run, pair: str) -> Progress:
        """Return what is known of a pair of steps, a key of state.PAIRS."""
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
    names = sorted(name for name, image in index.items() if _matches(image, filter_, classes))
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


class Selection:
    """The images of the first run, to sort and filter by scores of all runs.

    Other runs count by what they gain over the first.
    """

    def __init__(self, runs: Sequence[Run], disagreements: Disagreements) -> None:
        self.run, self.others, self._disagreements = runs[0], tuple(runs[1:]), disagreements

    def names(self, filter_: Filter) -> list[str]:
        """Return the ids that pass the filter, in its order."""
        return select(self.run.index, filter_, self.keys(filter_))

    def keys(self, filter_: Filter) -> SortKeys:
        """Return mIoU by step, gains of other runs, and the disagreement if it is used."""
        values: dict[str, Values] = {step: miou for step in SCORED if (miou := self.run.miou(step))}
        for run in self.others:
            for step in SCORED:
                before, after = values.get(step, {}), run.miou(step)
                gains = {name: after[name] - before[name] for name in after if name in before}
                if gains:
                    values[f"{GAIN}:{step}:{run.name}"] = gains
        if filter_.sort == DISAGREEMENT:
            # a copy, as another page may add to it
            values[DISAGREEMENT] = dict(self.progress(filter_).values)
        return SortKeys(values, frozenset({DISAGREEMENT}))

    def progress(self, filter_: Filter) -> Progress:
        """Return how far the disagreement of the filter's two steps is."""
        return self._disagreements.progress(self.run, filter_.differ)

    def advance(self, filter_: Filter) -> None:
        """Compute the disagreement of the filter's two steps for a while."""
        self._disagreements.advance(self.run, filter_.differ)

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
        """Return what is wrong with the files of any run, a line each."""
        texts = [text for run in (self.run, *self.others) for text in run.problems()]
        return list(dict.fromkeys(texts))
