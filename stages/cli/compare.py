"""`weakmask compare`: one experiment per method and seed through DVC's queue, then their scores
side by side.

weakmask compare --methods cam,seenet --seed 0 --seed 1 --seed 2
weakmask compare --steps cams -S cams.scales=[1.0] --name one-scale
weakmask compare --show --csv scores.csv
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from pipeline.core.resume import write_atomically
from pipeline.errors import UserError
from stages._command import read_parameters
from stages.experiments import experiments
from stages.experiments.experiments import Experiment
from stages.experiments.plan import METHODS, Run, choose, parse_name, plan
from stages.experiments.repository import PARAMETERS, check_repository, read_yaml
from stages.experiments.sweep import Sweep, say, shortened
from stages.experiments.table import STEPS, Score, as_csv, table
from stages.experiments.verdict import best, scores_of


@click.command()
@click.option(
    "--methods", multiple=True, metavar="A,B", help=f"Methods; {','.join(METHODS)} by default."
)
@click.option(
    "--seed", "seeds", multiple=True, type=int, help="Once for each seed; base.seed by default."
)
@click.option(
    "--steps", multiple=True, metavar="A,B", help=f"What is scored; {','.join(STEPS)} by default."
)
@click.option(
    "-S",
    "--set-param",
    "overrides",
    multiple=True,
    metavar="SECTION.NAME=VALUE",
    help="Parameter of all.",
)
@click.option("--name", "prefix", default="", help="Prefix of the experiments' names.")
@click.option(
    "--jobs", default=1, show_default=True, type=click.IntRange(1), help="Experiments at a time."
)
@click.option("--force", is_flag=True, help="Run all again and replace those of the same name.")
@click.option("--show", is_flag=True, help="Run nothing; print what is there.")
@click.option(
    "--csv", "output", type=click.Path(path_type=Path), help="File for every single score."
)
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

    Each is an experiment of DVC named METHOD-seedN, run from the queue in a copy of its own: the
    working tree stays as it is. Those already finished with the same parameters and code are not
    run again; neither is any stage that DVC has cached. Killed and started again it goes on. New
    images in a source folder that neither Git nor DVC tracks are not noticed: use --force.
    """
    chosen, wanted = choose("--methods", methods, METHODS), choose("--steps", steps, STEPS)
    if prefix and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", prefix):
        raise UserError(f"--name: must be letters, digits, `-`, `_` or `.`, got {prefix!r}")
    read_parameters(Path(PARAMETERS))
    parameters = read_yaml(Path(PARAMETERS).read_text(encoding="utf-8"), PARAMETERS)
    check_repository()
    if show:
        there = [
            parse_name(prefix, name)
            for entries in experiments.listed().values()
            for _, name in entries
        ]
        chosen = (
            chosen
            if methods
            else [m for m in METHODS if any(pair and pair[0] == m for pair in there)] or chosen
        )
        seeds = seeds or tuple(sorted({pair[1] for pair in there if pair and pair[0] in chosen}))
    runs = plan(
        parameters,
        chosen,
        seeds or [parameters["base"]["seed"]],
        prefix=prefix,
        overrides=overrides,
    )
    failed: list[str] = []
    if show:
        found = experiments.find([run.name for run in runs])
    else:
        sweep = Sweep(runs, wanted, jobs=jobs, work=Path(parameters["runtime"]["work"]))
        try:
            found = sweep.complete(force=force)
        except KeyboardInterrupt as error:
            say(
                "what is queued goes on, and this command, started again, waits for it; `dvc queue stop --kill` ends it"
            )
            raise click.Abort from error
        failed = sweep.failed
    scores = report(runs, found, wanted)
    click.echo("\n".join(table(scores, chosen, wanted)))
    if output is not None:
        write_atomically(output, as_csv(scores).encode())
        click.echo(f"wrote {output}")
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(runs)} experiments failed: {', '.join(failed)}"
        )


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
        unscored = [
            step
            for step in steps
            if step in pair[1].scored and not any(s.step == step for s in own)
        ]
        if unscored:
            say(f"{run.name}: no image has a pixel mask to score {', '.join(unscored)} with")
    if absent:
        say(f"not there: {shortened(absent, 8)}")
    return scores
