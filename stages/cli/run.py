"""weakmask run: `dvc repro` that says where it is, in lines that a reader wants to see.

Everything that DVC, the stages and their libraries print goes to a log. Shown are the stages as
they start, their progress bars and messages (`stage: ...`), and the end of the log of a failure.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import click

from pipeline.core.resume import write_atomically
from pipeline.errors import UserError
from pipeline.params import check_names
from stages._command import DATA, PARAMETERS, read_parameters

WORK = Path(".work")
LOG, SECONDS = WORK / "run.log", WORK / "seconds.json"
ALONE = {"GOMP_SPINCOUNT": "10000"}
"""Threads of one stage at a time may spin for longer, see `stages/__init__.py`."""
EXPECTED = {
    "dataset": 8,
    "segments": 7,
    "classifier": 99,
    "cams": 23,
    "seeds": 13,
    "irnet": 39,
    "fields": 14,
    "walk": 10,
    "semantic": 69,
    "instance": 163,
    "predictions": 17,
    "report": 6,
}
"""Seconds of the stages of the built-in scenes on two cores; all others take about 3."""
BAR = re.compile(r"\d+%\||\[\d\d:\d\d, ")
TAIL = 15
"""Last lines of the log that a failure shows."""


@click.command()
@click.argument("targets", nargs=-1)
@click.option("-f", "--force", is_flag=True, help="Run stages even if nothing changed.")
@click.option(
    "-S",
    "--set-param",
    "settings",
    multiple=True,
    metavar="SECTION.NAME=VALUE",
    help="Set a parameter first and keep the run as an experiment (`dvc exp run`); repeatable.",
)
@click.pass_context
def run(
    ctx: click.Context, targets: tuple[str, ...], force: bool, settings: tuple[str, ...]
) -> None:
    """Run the stages that changed, or those of TARGETS and what they need (`dvc repro`).

    Shows which stage runs and how long the rest will take; all other output goes to .work/run.log.
    """
    check_names(settings)
    check_source(settings)
    progress = Progress(planned(targets), known_seconds())
    command = [sys.executable, "-m", "dvc", *(["exp", "run"] if settings else ["repro"])]
    command += [word for setting in settings for word in ("--set-param", setting)]
    command += [*(["-f"] if force else []), *targets]
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with (
        LOG.open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | ALONE
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line, is_bar in split(process.stdout):
                if not is_bar:
                    log.write(line + "\n")
                    log.flush()
                progress.show(line, is_bar)
        except KeyboardInterrupt:  # which the stage got, too
            process.wait()
            raise UserError(f"interrupted at {progress.name}; `weakmask run` resumes") from None
    progress.finish(succeeded=not process.returncode)
    if process.returncode:
        tail = LOG.read_text(encoding="utf-8").splitlines()[-TAIL:]
        raise UserError("\n".join([f"{progress.name} failed; the end of {LOG}:", *tail]))
    if not targets:
        assert ctx.parent is not None
        assert isinstance(ctx.parent.command, click.Group)
        try:
            ctx.invoke(ctx.parent.command.commands["scores"])
        except UserError as error:  # without masks, all of this was a success nevertheless
            click.echo(f"{error}\nreport: {DATA / 'report' / 'index.html'}")
        click.echo("next: weakmask browse, to look at every step of every image")


def check_source(settings: Sequence[str]) -> None:
    """Raise UserError if `dataset.source`, as the settings or else params.yaml say, does not exist:
    DVC's own message names no parameter.
    """
    source = dict(setting.partition("=")[::2] for setting in settings).get("dataset.source")
    if source is None and PARAMETERS.is_file():
        source = read_parameters().dataset.source
    if source is not None and not Path(source).exists():
        raise UserError(
            f"dataset.source: {source} does not exist; name the folder of your images "
            "(`weakmask init --source FOLDER`)"
        )


def planned(targets: Sequence[str]) -> list[str]:
    """Return the names of the stages that DVC checks, in its order; raise UserError."""
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo
    from dvc.repo.reproduce import plan_repro

    try:
        with Repo() as repo:
            chosen = [stage for target in targets for stage in repo.stage.collect(target)]
            return [stage.addressing for stage in plan_repro(repo.index.graph, chosen or None)]
    except NotDvcRepoError as error:
        raise UserError(f"{error}; run it in the folder of dvc.yaml") from error
    except DvcException as error:
        raise UserError(str(error)) from error


def known_seconds() -> dict[str, float]:
    """Return how long each stage took when it ran last on this machine, as far as known."""
    with suppress(OSError, ValueError, TypeError):
        found = json.loads(SECONDS.read_text(encoding="utf-8"))
        return {str(name): float(value) for name, value in found.items()}
    return {}


def split(stream: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a stream as they come, with whether each is a state of a progress bar."""
    pending = b""
    while chunk := stream.read1(65536):  # type: ignore[attr-defined]
        *lines, pending = re.split(rb"[\r\n]", pending + chunk)
        if BAR.search(pending.decode(errors="replace")):  # a bar ends with the next one's \r
            lines, pending = [*lines, pending], b""
        for line in lines:
            text = line.decode(errors="replace")
            if text.strip():
                yield text, bool(BAR.search(text))
    if pending.strip():
        yield pending.decode(errors="replace"), False


class Progress:
    """Prints where a run is.

    Args:
        names: stages in the order in which DVC checks them.
        known: seconds that stages took when they last ran.
    """

    def __init__(self, names: Sequence[str], known: Mapping[str, float]) -> None:
        self.names, self.name = list(names), names[0] if names else "dvc repro"
        self.known, self.took = known, dict[str, float]()
        self.started: float | None = None
        self.live = sys.stderr.isatty()

    def show(self, line: str, is_bar: bool) -> None:
        """Print what a line of the output tells."""
        event = re.match(r"(Running stage|Stage) '([^']+)'", line)
        failed = re.search(r"failed to reproduce '([^']+)'", line)
        if is_bar:
            if self.live:
                click.echo(f"\r\033[K  {line}", err=True, nl=False)
        elif event is not None:
            self._stop()
            self.name = event[2]
            if event[1] == "Running stage":
                self.started = time.monotonic()
                self._print(self.position())
        elif failed is not None:
            self.name = failed[1]
        elif line.startswith(f"{self.name.split('@')[0]}: "):
            self._print(f"  {line}")

    def position(self) -> str:
        """Return the number of the stage, its name, and the time left with it."""
        place = self.names.index(self.name) if self.name in self.names else 0
        left = sum(self.expected(name) for name in self.names[place:]) * self.pace()
        about = f"{round(left / 60)} minutes" if left > 90 else f"{max(1, round(left))} seconds"
        return f"stage {place + 1} of {len(self.names)}: {self.name}, about {about} left"

    def expected(self, name: str) -> float:
        """Return the seconds that a stage takes if this run is as fast as the last one."""
        return self.known.get(name, EXPECTED.get(name, 3))

    def pace(self) -> float:
        """Return how many times as long as expected this run took, after a minute just as expected.

        Without that minute the first stages, of seconds each, would speak for all the others.
        """
        return sum(self.took.values(), 60.0) / (60 + sum(map(self.expected, self.took)))

    def finish(self, *, succeeded: bool) -> None:
        """Note how long the stages took, for the next run; the last one only if it succeeded."""
        if succeeded:
            self._stop()
        write_atomically(SECONDS, json.dumps({**self.known, **self.took}, indent=1).encode())

    def _stop(self) -> None:
        if self.started is not None:
            self.took[self.name], self.started = time.monotonic() - self.started, None

    def _print(self, text: str) -> None:
        click.echo(f"\r\033[K{text}" if self.live else text, err=True)
