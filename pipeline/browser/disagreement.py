"""How much two steps disagree on each image, computed in the background.

The job sleeps as long as it works, so that pages stay responsive.
"""

import time
from dataclasses import dataclass, field
from itertools import combinations
from threading import Lock, Thread

from pipeline.browser.run import Run
from pipeline.browser.sample import STEPS, Sample, difference
from pipeline.errors import UserError

Key = tuple[str, str, str, str]
PAIRS = {
    f"{one}-{other}": f"{STEPS[one]} and {STEPS[other]}" for one, other in combinations(STEPS, 2)
}
"""Pairs of steps and their titles."""


@dataclass(slots=True)
class Progress:
    """The disagreement by image so far, how many images are done, and the last problem."""

    total: int = 0
    done: int = 0
    values: dict[str, float] = field(default_factory=dict)
    problem: str | None = None

    @property
    def finished(self) -> bool:
        """Whether every image is done."""
        return self.done >= self.total


class DisagreementJob:
    """Shares of differing pixels by run and pair of steps; the latest request is computed first."""

    def __init__(self) -> None:
        self._found: dict[Key, Progress] = {}
        self._lock = Lock()
        self._wanted: tuple[Key, Run] | None = None
        self._thread: Thread | None = None

    def request(self, run: Run, one: str, other: str) -> Progress:
        """Return what is known of a pair of steps (keys of sample.STEPS) and compute the rest."""
        key = (run.name, run.stamp(), min(one, other), max(one, other))
        with self._lock:
            self._found.setdefault(key, Progress(total=len(run.index)))
            self._wanted = key, run
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._work, name="disagreement", daemon=True)
                self._thread.start()
            return self._found[key]

    def _work(self) -> None:
        while True:
            with self._lock:
                wanted = self._wanted
                if wanted is None or self._found[wanted[0]].finished:
                    self._thread = None
                    return
            self._compare(*wanted)

    def _compare(self, key: Key, run: Run) -> None:
        """Continue with one pair until it is finished or another one is requested."""
        progress = self._found[key]
        try:
            names = list(run.index)
        except UserError as error:
            progress.problem, progress.done = str(error), progress.total
            return
        for name in names[progress.done :]:
            start = time.monotonic()
            try:
                value = disagreement(Sample(run, name), key[2], key[3])
            except (UserError, KeyError) as error:
                progress.problem, value = str(error), None
            if value is not None:
                progress.values[name] = value
            progress.done += 1
            time.sleep(time.monotonic() - start)
            if self._wanted != (key, run):
                return
        progress.done = progress.total


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
