"""`weakmask compare`: one experiment per method and seed through DVC's queue, then their scores side by side.

weakmask compare --methods cam,seenet --seed 0 --seed 1 --seed 2
weakmask compare --steps cams -S cams.scales=[1.0] --name one-scale
weakmask compare --show --csv scores.csv
"""

import copy
import math
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from pipeline.errors import UserError
from pipeline.params import parse
from pipeline.params.maps import Classifier
from pipeline.work import write_atomically
from stages import experiments
from stages.comparison import MEASURES, STEPS, Score, as_csv, table
from stages.entry import DATA, read_parameters
from stages.experiments import PARAMETERS, Experiment, ExperimentError, Task

METHODS: tuple[str, ...] = typing.get_args(Classifier.model_fields["method"].annotation)
RACES = 3
"""Times the queue is read again because a worker changed it in between."""
TAIL = 12
"""Lines shown of a failed experiment's log."""


@dataclass(frozen=True)
class Run:
    """What is asked of one experiment; parameters: the whole content of params.yaml."""

    name: str
    method: str
    seed: int
    overrides: tuple[str, ...]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """How an experiment answers what is asked.

    missing: asked steps it has not scored. differences: what made the scores of the asked steps that is not as asked now.
    other: the same for the steps it has scored beyond those. scored: all steps it has scored.
    """

    missing: Sequence[str]
    differences: Sequence[str]
    other: Sequence[str]
    scored: Sequence[str]

    @property
    def whole(self) -> bool:
        """Whether nothing need run again."""
        return not self.missing and not self.differences


def choose(option: str, values: Iterable[str], valid: Sequence[str]) -> list[str]:
    """The names of comma-separated lists, each once, or all `valid` ones; raises UserError for any other."""
    chosen = list(
        dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip())
    )
    for name in chosen:
        if name not in valid:
            raise UserError(f"{option}: there is no {name!r}; choose from {', '.join(valid)}")
    return chosen or list(valid)


def experiment_name(prefix: str, method: str, seed: int) -> str:
    """The name of an experiment: `seenet-seed1`, or `PREFIX-seenet-seed1`."""
    return f"{prefix}-{method}-seed{seed}" if prefix else f"{method}-seed{seed}"


def parse_name(prefix: str, name: str) -> tuple[str, int] | None:
    """(method, seed) of an experiment's name; None where it is not one of ours."""
    match = re.fullmatch(
        rf"({'|'.join(METHODS)})-seed(\d+)", name.removeprefix(f"{prefix}-" if prefix else "")
    )
    found = (match[1], int(match[2])) if match else None
    return found if found and experiment_name(prefix, *found) == name else None


def override(parameters: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The parameters with one `section.name=value` set; raises UserError where that is no such text."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)+", key):
        raise UserError(f"-S {text}: must be section.name=value, such as labels.background=0.4")
    if key in ("classifier.method", "base.seed"):
        option = {"classifier.method": "--methods", "base.seed": "--seed"}[key]
        raise UserError(f"-S {text}: {option} says that")
    plain = experiments.read_yaml(value)
    if isinstance(plain, str) and "," in plain:
        raise UserError(f"-S {text}: must be one value; for several run compare once each, with --name")
    changed: Any = copy.deepcopy(dict(parameters))
    section = changed
    *path, last = key.split(".")
    for part in path:
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict):
        raise UserError(f"-S {text}: {PARAMETERS} has no section {'.'.join(path)}")
    section[last] = plain
    return changed


def plan(
    parameters: Mapping[str, Any],
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    prefix: str = "",
    overrides: Sequence[str] = (),
) -> list[Run]:
    """One run for each seed and method, seed by seed, so that pairs are complete early; raises UserError for wrong parameters."""
    for text in overrides:
        parameters = override(parameters, text)
    runs = []
    for seed in dict.fromkeys(seeds):
        for method in methods:
            own = copy.deepcopy(dict(parameters))
            own["classifier"]["method"], own["base"]["seed"] = method, seed
            parse(own)
            words = (*overrides, f"classifier.method={method}", f"base.seed={seed}")
            runs.append(Run(experiment_name(prefix, method, seed), method, seed, words, own))
    return runs


def judge(run: Run, experiment: Experiment, steps: Sequence[str]) -> Verdict:
    """Compare an experiment with what is asked; nothing that the asked steps do not depend on counts."""
    made = {step: experiments.made_by(experiment.lock, f"scores@{step}") for step in STEPS}
    scored = [step for step in STEPS if made[step]]

    def differences(wanted: Iterable[str]) -> list[str]:
        stages = list(dict.fromkeys(stage for step in wanted for stage in made[step]))
        changed = experiments.parameter_differences(experiment.lock, stages, run.parameters)
        return changed + [f"{path} has changed" for path in experiments.changed_files(experiment, stages)]

    asked = [step for step in scored if step in steps]
    return Verdict(
        missing=[step for step in steps if step not in scored],
        differences=differences(asked),
        other=differences([step for step in scored if step not in steps]),
        scored=scored,
    )


def best(run: Run, found: Sequence[Experiment], steps: Sequence[str]) -> tuple[Experiment, Verdict] | None:
    """Of the experiments of one name the first that answers what is asked, else the first."""
    judged = [(experiment, judge(run, experiment, steps)) for experiment in found]
    return next((pair for pair in judged if pair[1].whole), judged[0] if judged else None)


def scores_of(run: Run, experiment: Experiment, verdict: Verdict, steps: Sequence[str]) -> list[Score]:
    """The scores of the asked steps that the experiment has itself made."""
    found = []
    for step, name, _ in MEASURES:
        if step in steps and step in verdict.scored:
            value: Any = experiment.metrics.get((DATA / "scores" / f"{step}.json").as_posix(), {})
            for part in name.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if isinstance(value, int | float) and math.isfinite(value):
                found.append(Score(run.method, run.seed, step, name, float(value)))
    return found


def say(line: str) -> None:
    """One line beside the progress, on standard error."""
    with tqdm.external_write_mode():
        click.echo(line, err=True)


def shortened(texts: Sequence[str], most: int = 3) -> str:
    """The first few of a list, and how many more."""
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


class Queue:
    """Brings the runs asked for to their end."""

    def __init__(self, runs: Sequence[Run], steps: Sequence[str], *, jobs: int, work: Path) -> None:
        self.runs, self.steps, self.jobs, self.work = {run.name: run for run in runs}, steps, jobs, work
        self.failed: list[str] = []
        self.found: dict[str, list[Experiment]] = {}
        self.copies: list[str] = []

    def complete(self, *, force: bool) -> dict[str, list[Experiment]]:
        """Queue what is missing and wait for all; the finished experiments. Raises UserError where a name is taken by another."""
        self.copies = experiments.left_behind(next(iter(self.runs.values())).parameters)
        running = self._take_over(force=force)
        todo = self._missing([name for name in self.runs if name not in running], force=force)
        if not todo and not running:
            return self.found
        self._warn()
        lost = self._run(todo, running)
        # what was running already may have been asked for fewer steps; what died gets a second chance
        ended = [name for name in running if name not in self.failed and name not in lost]
        todo = self._missing(self._incomplete(ended), force=True) | dict.fromkeys(lost, self.steps)
        for name in self._run(todo, []):
            self._fail(name, "its process died twice without a word; is there memory enough?")
        return experiments.find(list(self.runs))

    def _take_over(self, *, force: bool) -> list[str]:
        """The runs that go on already, from an earlier start of this command; those that only wait leave the queue.

        They may have been asked for other steps, and nothing is lost by queueing them anew. Raises ExperimentError where they have
        other parameters.
        """
        for tries in range(RACES, -1, -1):
            entries = [task for task in experiments.settled() if task.name in self.runs]
            running = [task.name for task in entries if task.status == "Running"]
            for task in entries:
                if task.status == "Running" or (task.status == "Queued" and not force):
                    self._check(task)
            stale = [task for task in entries if task.status == "Queued" or task.name in running]
            try:
                experiments.remove([], [task for task in stale if task.status != "Running"])
                break
            except ExperimentError:  # a worker has begun one of them meanwhile
                if not tries:
                    raise
        for name in running:
            say(f"{name} is running already")
        return running

    def _check(self, task: Task) -> None:
        wrong = experiments.whole_differences(
            experiments.parameters_of(task), self.runs[task.name].parameters
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
        """The steps to run for each name that no finished experiment answers, and room made for them."""
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
        stale = [task for task in experiments.settled() if task.name in todo and task.status != "Running"]
        experiments.remove(replaced, stale)
        return todo

    def _warn(self) -> None:
        """Say what goes into the experiments and what does not."""
        changed, unknown = experiments.uncommitted()
        if changed:
            say(f"uncommitted changes go into the experiments: {shortened(changed)}")
        code = [path for path in unknown if path.startswith(("pipeline/", "stages/"))]
        if code:
            say(f"files unknown to Git do not, so `git add` what is needed: {shortened(code)}")

    def _run(self, todo: Mapping[str, Sequence[str]], running: Sequence[str]) -> list[str]:
        """Queue experiments, wait for them and for those running; names of those whose process died."""
        for name, steps in todo.items():
            run = self.runs[name]
            targets = [f"scores@{step}" for step in steps]
            experiments.queue(name, run.overrides, targets, self.copies)
            say(f"{name} queued")
        names = [*todo, *running]
        lost: list[str] = []
        for name, task in experiments.watch(names, jobs=self.jobs, work=self.work) if names else ():
            if task is None:
                self._fail(name, "somebody took it out of the queue")
            elif task.status == "Lost":
                lost.append(name)
                say(f"{name}: its process died without a word")
            elif task.status == "Failed":
                self._fail(name, *log_tail(experiments.log(task)), task=task)
            else:
                say(f"{name} done")
        return lost

    def _fail(self, name: str, *why: str, task: Task | None = None) -> None:
        self.failed.append(name)
        more = [f"all of it: dvc queue logs {task.revision}"] if task else []
        say("\n  ".join([f"{name} failed", *why, *more]))


def log_tail(lines: Sequence[str]) -> list[str]:
    """The last lines of a log that say why, each once."""
    return list(dict.fromkeys(lines))[-TAIL:]


@click.command()
@click.option("--methods", multiple=True, metavar="A,B", help=f"Methods; {','.join(METHODS)} by default.")
@click.option("--seed", "seeds", multiple=True, type=int, help="Once for each seed; base.seed by default.")
@click.option("--steps", multiple=True, metavar="A,B", help=f"What is scored; {','.join(STEPS)} by default.")
@click.option(
    "-S", "--set-param", "overrides", multiple=True, metavar="SECTION.NAME=VALUE", help="Parameter of all."
)
@click.option("--name", "prefix", default="", help="Prefix of the experiments' names.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Experiments at a time.")
@click.option("--force", is_flag=True, help="Run all again and replace those of the same name.")
@click.option("--show", is_flag=True, help="Run nothing; print what is there.")
@click.option("--csv", "output", type=click.Path(path_type=Path), help="File for every single score.")
def compare(
    methods: tuple[str, ...],
    seeds: tuple[int, ...],
    steps: tuple[str, ...],
    overrides: tuple[str, ...],
    prefix: str,
    jobs: int,
    force: bool,
    show: bool,
    output: Path | None,
) -> None:
    """Train and score every method with every seed, and print the scores side by side.

    Each is an experiment of DVC named METHOD-seedN, run from the queue in a copy of its own: the working tree stays as it is.
    Those already finished with the same parameters and code are not run again; neither is any stage that DVC has cached. Killed and
    started again it goes on. New pictures in a source folder that neither Git nor DVC tracks are not noticed: use --force.
    """
    chosen, wanted = choose("--methods", methods, METHODS), choose("--steps", steps, STEPS)
    if prefix and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", prefix):
        raise UserError(f"--name: must be letters, digits, `-`, `_` or `.`, got {prefix!r}")
    read_parameters(Path(PARAMETERS))
    parameters = experiments.read_yaml(Path(PARAMETERS).read_text(encoding="utf-8"))
    experiments.check_repository()
    if show:
        there = [parse_name(prefix, name) for entries in experiments.listed().values() for _, name in entries]
        chosen = (
            chosen
            if methods
            else [m for m in METHODS if any(pair and pair[0] == m for pair in there)] or chosen
        )
        seeds = seeds or tuple(sorted({pair[1] for pair in there if pair and pair[0] in chosen}))
    runs = plan(parameters, chosen, seeds or [parameters["base"]["seed"]], prefix=prefix, overrides=overrides)
    failed: list[str] = []
    if show:
        found = experiments.find([run.name for run in runs])
    else:
        queue = Queue(runs, wanted, jobs=jobs, work=Path(parameters["runtime"]["work"]))
        try:
            found = queue.complete(force=force)
        except KeyboardInterrupt as error:
            say(
                "what is queued goes on, and this command, started again, waits for it; `dvc queue stop --kill` ends it"
            )
            raise click.Abort from error
        failed = queue.failed
    scores = report(runs, found, wanted)
    click.echo("\n".join(table(scores, chosen, wanted)))
    if output is not None:
        write_atomically(output, as_csv(scores).encode())
        click.echo(f"wrote {output}")
    if failed:
        raise click.ClickException(f"{len(failed)} of {len(runs)} experiments failed: {', '.join(failed)}")


def report(
    runs: Sequence[Run], found: Mapping[str, Sequence[Experiment]], steps: Sequence[str]
) -> list[Score]:
    """The scores of all runs; says which are not there, or were made otherwise than asked."""
    scores: list[Score] = []
    absent: list[str] = []
    for run in runs:
        pair = best(run, found.get(run.name, []), steps)
        if pair is None:
            absent.append(run.name)
            continue
        own = scores_of(run, *pair, steps)
        scores += own
        if pair[1].differences:
            say(f"{run.name} was made otherwise than asked now: {shortened(pair[1].differences)}")
        if pair[1].missing:
            say(f"{run.name} has no scores of {', '.join(pair[1].missing)}")
        unscored = [step for step in steps if step in pair[1].scored and not any(s.step == step for s in own)]
        if unscored:
            say(f"{run.name}: no picture has a pixel mask to score {', '.join(unscored)} with")
    if absent:
        say(f"not there: {shortened(absent, 8)}")
    return scores
