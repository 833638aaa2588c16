"""On how much of each image two steps differ: computed in the background, half of the time at most,
so that pages stay quick.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event, Lock, Thread

from pipeline.browser.live_walk import PATHS, own
from pipeline.browser.run import Run
from pipeline.browser.sample import STEPS, Sample, difference
from pipeline.errors import UserError

Key = tuple[str, str, str, str]


@dataclass(slots=True)
class Progress:
    """Shares by image found so far, how many images there are, how many were looked at, and what
    went wrong with others.
    """

    total: int = 0
    done: int = 0
    values: dict[str, float] = field(default_factory=dict)
    problem: str | None = None

    @property
    def finished(self) -> bool:
        """Whether every image was looked at."""
        return self.done >= self.total


class Disagreements:
    """Shares of differing pixels by run and pair of steps; asking starts the computation, and the
    latest question goes first.
    """

    def __init__(self) -> None:
        self._found: dict[Key, Progress] = {}
        self._lock, self._stop = Lock(), Event()
        self._wanted: tuple[Key, Run] | None = None
        self._thread: Thread | None = None

    def ask(self, run: Run, one: str, other: str) -> Progress:
        """What is known by now of a pair of steps (keys of shown.STEPS); the rest is being
        computed.
        """
        key = (run.name, run.stamp(), min(one, other), max(one, other))
        with self._lock:
            self._found.setdefault(key, Progress(total=len(run.index)))
            self._wanted = key, run
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._work, name="disagreements", daemon=True)
                self._thread.start()
            return self._found[key]

    def stop(self) -> None:
        """End the computation."""
        self._stop.set()

    def _work(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                wanted = self._wanted
                if wanted is None or self._found[wanted[0]].finished:
                    self._thread = None
                    return
            self._look(*wanted)

    def _look(self, key: Key, run: Run) -> None:
        """Go on with one pair until it is finished or another one is asked for."""
        progress = self._found[key]
        try:
            names = list(run.index)
            threshold = own(run.parameters, *PATHS["threshold"]) if "cams" in key[2:] else 0.0
        except UserError as error:
            progress.problem, progress.done = str(error), progress.total
            return
        for name in names[progress.done :]:
            start = time.monotonic()
            try:
                value = share(Sample(run, name), (key[2], key[3]), threshold)
            except (UserError, KeyError) as error:
                progress.problem, value = str(error), None
            if value is not None:
                progress.values[name] = value
            progress.done += 1
            if self._stop.wait(time.monotonic() - start) or self._wanted != (key, run):
                return
        progress.done = progress.total


def share(shown: Sample, steps: tuple[str, str], threshold: float) -> float | None:
    """Share of an image's pixels on which two steps differ; None where it lacks one of them."""
    if not all(shown.has(step) for step in steps):
        return None
    one, other = (shown.label_map(step, threshold) for step in steps)
    return difference(one, other)


def pairs(run: Run) -> Mapping[tuple[str, str], str]:
    """The pairs of steps that a run has both of, with their titles."""
    there = [step for step in STEPS if (step == "truth" and _has_truth(run)) or run.exists(step)]
    return {
        (one, other): f"{STEPS[one]} and {STEPS[other]}"
        for number, one in enumerate(there)
        for other in there[number + 1 :]
    }


def _has_truth(run: Run) -> bool:
    return any(image.semantic is not None for image in run.index.values())
