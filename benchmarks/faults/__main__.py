"""Do harm to every stage of a small run and print what came of it.

    python -m benchmarks.faults                                    everything, 20 kills a stage
    python -m benchmarks.faults --kills 3 --stages cams,irnet --kinds kill,sabotage

A full disk is a small tmpfs in a namespace of its own (`unshare`, Linux); where that may not be, it
is left out.
"""

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from benchmarks.__main__ import header
from benchmarks.faults import box as boxes
from benchmarks.faults.trials import (
    KINDS,
    Trial,
    can_mount,
    full,
    killed,
    sabotaged,
    truncated,
    without_worker,
)
from tests.support.repository import up_to_date

APART = "WEAKMASK_FAULTS_APART"


@click.command()
@click.option(
    "--kills", default=20, show_default=True, type=click.IntRange(0), help="Random moments a stage."
)
@click.option(
    "--places",
    default=4,
    show_default=True,
    type=click.IntRange(1),
    help="Exact moments a kind and stage.",
)
@click.option("--stages", default="", metavar="A,B", help="Stages to harm; all by default.")
@click.option(
    "--kinds", default=",".join(KINDS), show_default=True, metavar="A,B", help="Faults to try."
)
@click.option("--seed", default=0, show_default=True, help="Of the random moments.")
@click.option(
    "--run",
    "folder",
    type=click.Path(path_type=Path),
    help="Copy of the repository in which the graph has run; it is changed. Made by default.",
)
def main(kills: int, places: int, stages: str, kinds: str, seed: int, folder: Path | None) -> None:
    """Print a table of faults tried and survived; the exit status is 1 if one was not."""
    _apart()
    for line in header("benchmarks.faults"):
        click.echo(line)
    with tempfile.TemporaryDirectory(prefix="weakmask-faults-") as name:
        box = boxes.Box(folder) if folder else boxes.make(Path(name) / "run")
        wanted = stages.split(",") if stages else box.stages
        trials: list[Trial] = []
        click.echo(
            "| stage | fault | tried | survived | work lost at most |\n|---|---|---|---|---|"
        )
        for stage in wanted:
            found = list(
                harm(
                    box,
                    stage,
                    set(kinds.split(",")),
                    kills,
                    places,
                    random.Random(f"{seed} {stage}"),
                )
            )
            box.restore()
            trials += found
            for line in rows(found):
                click.echo(line)
            for trial in found:
                if not trial.survived:
                    click.echo(f"{trial.stage}, {trial.fault}: {trial.wrong}", err=True)
        whole = up_to_date(box.folder)
    wrong = [trial for trial in trials if not trial.survived]
    click.echo(
        f"\n{len(trials)} faults, {len(trials) - len(wrong)} survived; `dvc status` is {'clean' if whole else 'NOT clean'} after them"
    )
    sys.exit(1 if wrong or not whole else 0)


def harm(
    box: boxes.Box, stage: str, kinds: set[str], kills: int, places: int, chance: random.Random
) -> Iterator[Trial]:
    """Everything of these kinds, done to one stage."""
    if "kill" in kinds:
        yield from killed(box, stage, kills, chance)
    if "sabotage" in kinds:
        yield from sabotaged(box, stage, places)
    if "worker" in kinds:
        yield from without_worker(box, stage, chance)
    if "full" in kinds and can_mount():
        yield from full(box, stage)
    if "truncate" in kinds:
        yield from truncated(box, stage)


def rows(trials: Iterable[Trial]) -> Iterator[str]:
    """A row a fault: how often it was tried, how often survived, and the most seconds of work that
    were lost.
    """
    kinds: dict[str, list[Trial]] = {}
    for trial in trials:
        kinds.setdefault(trial.fault, []).append(trial)
    for fault, found in kinds.items():
        survived = sum(trial.survived for trial in found)
        yield f"| {found[0].stage} | {fault} | {len(found)} | {survived} | {max(trial.lost for trial in found):.1f} s |"


def _apart() -> None:
    """Start again in a namespace in which small disks can be mounted, seen by nobody else."""
    unshare = shutil.which("unshare")
    if (
        unshare
        and APART not in os.environ
        and os.spawnv(os.P_WAIT, unshare, ["unshare", "-rm", "true"]) == 0
    ):
        os.environ[APART] = "1"
        os.execv(
            unshare, ["unshare", "-rm", sys.executable, "-m", "benchmarks.faults", *sys.argv[1:]]
        )


if __name__ == "__main__":
    main()
