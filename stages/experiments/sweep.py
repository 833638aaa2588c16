"""The experiments asked for, brought to their end: what is missing is queued, what goes on is
waited for, the rest is there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from tqdm import tqdm

from stages.experiments import experiments, lineage, queue, repository
from stages.experiments.experiments import Experiment
from stages.experiments.plan import Run
from stages.experiments.queue import Task
from stages.experiments.repository import ExperimentError
from stages.experiments.table import STEPS
from stages.experiments.verdict import best, judge

RACES = 3
"""Times the queue is read again because a worker changed it in between."""


def say(line: str) -> None:
    """One line beside the progress, on standard error."""
    with tqdm.external_write_mode():
        click.echo(line, err=True)


def shortened(texts: Sequence[str], most: int = 3) -> str:
    """The first few of a list, and how many more."""
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


class Sweep:
    """The runs asked for, on their way to their end."""

    def __init__(self, runs: Sequence[Run], steps: Sequence[str], *, jobs: int, work: Path) -> None:
        self.runs, self.steps, self.jobs, self.work = (
            {run.name: run for run in runs},
            steps,
            jobs,
            work,
        )
        self.failed: list[str] = []
        self.found: dict[str, list[Experiment]] = {}
        self.copies: list[str] = []

    def complete(self, *, force: bool) -> dict[str, list[Experiment]]:
        """Queue what is missing and wait for all; the finished experiments. Raises UserError where
        a name is taken by another.
        """
        self.copies = repository.left_behind(next(iter(self.runs.values())).parameters)
        running = self._take_over(force=force)
        todo = self._missing([name for name in self.runs if name not in running], force=force)
        if not todo and not running:
            return self.found
        self._warn()
        lost = self._run(todo, running)
        # what was running already may have been asked for fewer steps; what died gets a second
        # chance
        ended = [name for name in running if name not in self.failed and name not in lost]
        todo = self._missing(self._incomplete(ended), force=True) | dict.fromkeys(lost, self.steps)
        for name in self._run(todo, []):
            self._fail(name, "its process died twice without a word; is there memory enough?")
        return experiments.find(list(self.runs))

    def _take_over(self, *, force: bool) -> list[str]:
        """The runs that go on already, from an earlier start of this command; those that only wait
        leave the queue.

        They may have been asked for other steps, and nothing is lost by queueing them again. Raises
        ExperimentError where they have other parameters.
        """
        for tries in range(RACES, -1, -1):
            entries = [task for task in queue.settled() if task.name in self.runs]
            running = [task.name for task in entries if task.status == "Running"]
            for task in entries:
                if task.status == "Running" or (task.status == "Queued" and not force):
                    self._check(task)
            stale = [task for task in entries if task.status == "Queued" or task.name in running]
            try:
                queue.remove([task for task in stale if task.status != "Running"])
                break
            except ExperimentError:  # a worker has begun one of them meanwhile
                if not tries:
                    raise
        for name in running:
            say(f"{name} is running already")
        return running

    def _check(self, task: Task) -> None:
        wrong = lineage.whole_differences(
            queue.parameters_of(task), self.runs[task.name].parameters
        )
        if wrong:
            state, end = {
                "Running": ("running", f"dvc queue kill {task.name}"),
                "Queued": ("in the queue", f"dvc queue remove {task.name}"),
            }[task.status]
            raise ExperimentError(
                f"{task.name} is {state} with other parameters: {shortened(wrong)}. "
                f"Wait for it, end it ({end}), or give these another --name"
            )

    def _incomplete(self, names: Sequence[str]) -> list[str]:
        """The runs whose experiment has not scored all asked steps."""
        found = experiments.find(names) if names else {}
        pairs = {name: best(self.runs[name], found.get(name, []), self.steps) for name in names}
        return [name for name, pair in pairs.items() if pair is None or pair[1].missing]

    def _missing(self, names: Sequence[str], *, force: bool) -> dict[str, Sequence[str]]:
        """The steps to run for each name that no finished experiment answers, and room made for
        them.
        """
        if not names:
            return {}
        found = self.found = experiments.find(names)
        todo: dict[str, Sequence[str]] = {}
        taken: list[str] = []
        replaced: list[str] = []
        for name in names:
            pair = best(self.runs[name], found.get(name, []), self.steps)
            if pair and pair[1].whole and not force:
                say(f"{name} is there already")
                continue
            todo[name] = self.steps
            own = next((entry for entry in found.get(name, []) if entry.here), None)
            if own:
                verdict = judge(self.runs[name], own, self.steps)
                todo[name] = [step for step in STEPS if step in {*self.steps, *verdict.scored}]
                wrong = list(dict.fromkeys([*verdict.differences, *verdict.other]))
                taken += [f"{name}: {shortened(wrong)}"] if wrong and not force else []
                replaced.append(name)
        if taken:
            raise ExperimentError(
                "finished experiments of these names were made otherwise:\n  "
                + "\n  ".join(taken)
                + "\n--force replaces them, --name PREFIX keeps both, --show prints them"
            )
        if not todo:
            return {}
        # earlier ends under these names would hide how the new ones end
        stale = [task for task in queue.settled() if task.name in todo and task.status != "Running"]
        queue.remove(stale)
        experiments.remove(replaced)
        return todo

    def _warn(self) -> None:
        """Say what goes into the experiments and what does not."""
        changed, unknown = repository.uncommitted()
        if changed:
            say(f"uncommitted changes go into the experiments: {shortened(changed)}")
        code = [path for path in unknown if path.startswith(("pipeline/", "stages/"))]
        if code:
            say(f"files unknown to Git do not, so `git add` what is needed: {shortened(code)}")

    def _run(self, todo: Mapping[str, Sequence[str]], running: Sequence[str]) -> list[str]:
        """Queue experiments, wait for them and for those running; names of those whose process
        died.
        """
        for name, steps in todo.items():
            run = self.runs[name]
            targets = [f"scores@{step}" for step in steps]
            queue.add(name, run.overrides, targets, self.copies)
            say(f"{name} queued")
        names = [*todo, *running]
        lost: list[str] = []
        for name, task in queue.watch(names, jobs=self.jobs, work=self.work) if names else ():
            if task is None:
                self._fail(name, "somebody took it out of the queue")
            elif task.status == "Lost":
                lost.append(name)
                say(f"{name}: its process died without a word")
            elif task.status == "Failed":
                self._fail(name, *queue.log_tail(queue.log(task)), task=task)
            else:
                say(f"{name} done")
        return lost

    def _fail(self, name: str, *why: str, task: Task | None = None) -> None:
        self.failed.append(name)
        more = [f"all of it: dvc queue logs {task.revision}"] if task else []
        say("\n  ".join([f"{name} failed", *why, *more]))
