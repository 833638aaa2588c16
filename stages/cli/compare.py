"""`weakmask compare`: finished DVC experiments side by side, with error bars over their seeds.

weakmask compare --queue -S classifier.method=cam,seenet,puzzlecam,s2c -S base.seed=0,1,2
dvc queue start -j 2
weakmask compare
"""

import shlex
import subprocess
import sys
from pathlib import Path

import click

from pipeline.errors import UserError
from pipeline.params import check_names
from stages._command import read_parameters
from stages.experiments.dvc_cache import PARAMETERS, is_tracked
from stages.experiments.finished import differing_code, finished_experiments, table, variants


@click.command()
@click.argument("names", metavar="[EXPERIMENT]...", nargs=-1)
@click.option("--rev", "revisions", multiple=True, help="Commit the experiments started from.")
@click.option("--queue", is_flag=True, help="Queue the experiments of -S instead.")
@click.option(
    "-S",
    "--set-param",
    "overrides",
    multiple=True,
    metavar="SECTION.NAME=A,B",
    help="With --queue: values of a parameter; the grid of all -S is queued.",
)
def compare(
    names: tuple[str, ...], revisions: tuple[str, ...], queue: bool, overrides: tuple[str, ...]
) -> None:
    """Print the scores of finished DVC experiments, averaged over their seeds.

    A row is a method with the other parameters in which the experiments differ. All experiments
    that started from the current commit count, or those named.
    """
    if queue:
        _queue(overrides)
        return
    if overrides:
        raise UserError("-S: needs --queue; without it, finished experiments are compared")
    experiments = finished_experiments(revisions)
    known = [one.name for one in experiments] or ["none"]
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"{unknown[0]}: no finished experiment; there are {', '.join(known)}")
    found = variants([one for one in experiments if not names or one.name in names])
    if not found:
        raise UserError(
            "no finished experiments of this commit; queue some with `weakmask compare --queue "
            "-S classifier.method=cam,s2c -S base.seed=0,1,2`, or name another commit with --rev"
        )
    compared = [one for seeds in found.values() for one in seeds.values()]
    for one in compared:
        if one.stale:
            steps = ", ".join(one.stale)
            click.echo(f"{one.name}: no scores of {steps}, as another run made them", err=True)
    if code := differing_code(compared):
        click.echo(f"the experiments ran with different versions of {', '.join(code)}", err=True)
    rows = {
        name: {seed: one.scores for seed, one in seeds.items()} for name, seeds in found.items()
    }
    click.echo("\n".join(table(rows)))


def _queue(overrides: tuple[str, ...]) -> None:
    """Queue the grid of all values with DVC, whose messages go to the terminal.

    Raises UserError if the copies in which DVC runs what is queued lack the images.
    """
    check_names(overrides)
    source = Path(read_parameters().dataset.source)
    if not source.is_absolute() and not is_tracked(source):
        raise UserError(
            f"{PARAMETERS}: neither Git nor DVC tracks dataset.source {source}, so the copies of "
            f"the repository that DVC runs experiments in lack it; write {source.resolve()} there, "
            f"or run `dvc add {shlex.quote(str(source))}`"
        )
    options = [word for value in overrides for word in ("--set-param", value)]
    command = [sys.executable, "-m", "dvc", "exp", "run", "--queue", *options]
    if subprocess.run(command, check=False).returncode:
        raise UserError("`dvc exp run --queue` failed; see its message above")
    click.echo("run them with `dvc queue start -j 1`, then print the table with `weakmask compare`")
