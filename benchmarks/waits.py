"""How much the stages ask of a GPU, and how often they wait for it: counted on a stand-in, so no
GPU is needed.

    python -m benchmarks.waits                       on a small run made for it
    python -m benchmarks.waits --run FOLDER          on a copy of the repository in which the graph has run; it is changed

Whatever a GPU's speed, it is idle while the program asks for one small operator after the other,
and while the program waits for an answer. The table says for each batch of images, or step of a
training, how many operators it takes and how many waits, and which line waits most. Transfers count
as operators, and a training's first step, which makes its optimizer's state, does not.
"""

import contextlib
import importlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click

from benchmarks.__main__ import header
from benchmarks.standin import Place, StandIn
from pipeline.core import engine, trainer
from tests.support.repository import QUICK, ran, set_parameters

SETTINGS: Mapping[str, object] = QUICK | {
    "classifier.method": "s2c",
    "classifier.batch": 8,
    "classifier.s2c.warmup": 0,
    "dataset.scenes.images": 40,
    "irnet.batch": 8,
    "semantic.batch": 8,
    "instance.batch": 8,
    "runtime.batch": 8,
    "runtime.shard": 64,
}
"""Parameters of the run."""
VARIANTS: Mapping[str, Mapping[str, object]] = {
    "cam": {"classifier.method": "cam"},
    "seenet": {"classifier.method": "seenet"},
    "puzzlecam": {"classifier.method": "puzzlecam"},
    "s2c": {"classifier.method": "s2c"},
    "sparseinst": {"instance.method": "sparseinst"},
    "maskrcnn": {"instance.method": "maskrcnn"},
}
"""Parameters of the methods that are asked for one after the other."""
ROWS = (
    *(f"classifier {method}" for method in ("cam", "seenet", "puzzlecam", "s2c")),
    "cams",
    "irnet",
    "fields",
    "labels",
    "semantic",
    "instance sparseinst",
    "instance maskrcnn",
    "predictions",
    "scores walk",
)
"""Stages that use a device, with a method or an argument."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a batch of images, or a step, asked of the device."""

    images: int
    operators: int
    waits: Counter[Place]


def observe(folder: Path, stage: str, *arguments: str) -> list[Asked]:
    """Run a stage in a folder on a stand-in and return what each of its batches or steps asked for."""
    with StandIn() as device, _recorded(device) as asked:
        run_here(folder, stage, *arguments)
    return asked


def run_here(folder: Path, stage: str, *arguments: str) -> None:
    """Run a stage in a folder, in this process."""
    command = getattr(importlib.import_module(f"stages.{stage}"), stage)
    with contextlib.chdir(folder):
        command.main(list(arguments), standalone_mode=False)


@contextlib.contextmanager
def _recorded(device: StandIn) -> Iterator[list[Asked]]:
    """What is asked for within the engines' batches and steps."""
    found: list[Asked] = []
    guarded, fetched = engine._guarded, trainer._fetched

    def count() -> tuple[int, Counter[Place]]:
        return device.operators.total(), Counter(device.waits)

    def keep(images: int, before: tuple[int, Counter[Place]]) -> None:
        operators, waits = count()
        found.append(Asked(images, operators - before[0], waits - before[1]))

    def batch(task: engine.Task, names: list[str], items: list[Any]) -> Sequence[Any]:
        before = count()
        results = guarded(task, names, items)
        keep(len(names), before)
        return results

    def steps(batches: Iterable[Any]) -> Iterator[Any]:
        for one in fetched(batches):
            before = count()
            yield one
            keep(len(one[0]), before)

    with patch.object(engine, "_guarded", batch), patch.object(trainer, "_fetched", steps):
        yield found


def row(name: str, asked: Sequence[Asked]) -> str:
    """A line of the table: means over the batches of most images, without the first of several."""
    if not asked:
        return f"| {name} | | | | | |"
    most = max(one.images for one in asked)
    full = [one for one in asked if one.images == most]
    counted = full[1:] or full
    waits = Counter[Place]()
    for one in counted:
        waits.update(one.waits)
    operators = sum(one.operators for one in counted) / len(counted)
    where = "; ".join(
        f"{count / len(counted):.3g} {what} in {place}"
        for (what, place), count in waits.most_common(2)
    )
    return f"| {name} | {most} | {operators:.0f} | {operators / most:.0f} | {waits.total() / len(counted):.3g} | {where} |"


@click.command()
@click.option(
    "--stages", default=",".join(ROWS), show_default=True, metavar="A,B", help="Rows of the table."
)
@click.option(
    "--run", "folder", type=click.Path(path_type=Path), help="Folder with a run. Made by default."
)
def main(stages: str, folder: Path | None) -> None:
    """Print a table of what stages ask of a device."""
    for line in header("benchmarks.waits"):
        click.echo(line)
    with tempfile.TemporaryDirectory(prefix="weakmask-waits-") as name:
        box = folder or Path(name) / "run"
        if folder is None:
            ran(box, SETTINGS)
        click.echo(
            "| stage | images at once | operators | an image | waits | where most |\n|---|---|---|---|---|---|"
        )
        for asked_for in stages.split(","):
            stage, *rest = asked_for.split(" ")
            if rest and rest[0] in VARIANTS:
                set_parameters(box, VARIANTS[rest[0]])
                rest = []
            click.echo(row(asked_for, observe(box, stage, *rest)))


if __name__ == "__main__":
    main()
