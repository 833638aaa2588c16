"""Every stage with one, two and four ranks under torchrun: the same bytes image by image, the same
losses from trainings.

python -m benchmarks.ranks                       on a small run made for it
python -m benchmarks.ranks --stages cams,irnet --worlds 1,2
"""

import csv
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.__main__ import header
from benchmarks.faults.box import Box, Ended, make

TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node")
CLOSE = 1e-3
"""Largest share by which the losses of two trainings may differ that add up in another order."""


def run(box: Box, stage: str, world: int) -> Ended:
    """A stage from nothing, with `world` ranks."""
    box.forget(stage)
    return box.run(stage, (*TORCHRUN, str(world), "-m"))


def verdict(box: Box, stage: str, curve: Sequence[float]) -> tuple[str, bool]:
    """How what a stage wrote compares with the undisturbed run, whose losses were `curve`: in
    words, and whether that is right.
    """
    wrote, right = box.wrote(stage), box.right[stage]
    if wrote == right:
        return "same bytes", True
    if not curve or wrote.keys() != right.keys():
        return (
            f"other bytes in {', '.join(sorted(name for name in right if wrote.get(name) != right[name]))}",
            False,
        )
    found = losses(box, stage)
    if len(found) != len(curve):
        return f"{len(found)} losses instead of {len(curve)}", False
    apart = max(abs(one - other) / abs(other) for one, other in zip(found, curve, strict=True))
    return f"losses within {apart:.1e}", apart <= CLOSE


def losses(box: Box, stage: str) -> list[float]:
    """The losses of a training's curve; none of a stage that does not train."""
    path = box.folder / f"data/curves/{stage}.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@click.command()
@click.option("--stages", default="", metavar="A,B", help="Stages to run; all by default.")
@click.option(
    "--worlds", default="1,2,4", show_default=True, metavar="N,M", help="Numbers of ranks."
)
@click.option(
    "--run",
    "folder",
    type=click.Path(path_type=Path),
    help="Copy of the repository in which the graph has run; it is changed. Made by default.",
)
def main(stages: str, worlds: str, folder: Path | None) -> None:
    """Print a table of stages and numbers of ranks; the exit status is 1 if one gave another
    result.
    """
    for line in header("benchmarks.ranks"):
        click.echo(line)
    numbers = [int(number) for number in worlds.split(",")]
    whole = True
    with tempfile.TemporaryDirectory(prefix="weakmask-ranks-") as name:
        box = Box(folder) if folder else make(Path(name) / "run")
        click.echo("| stage | " + " | ".join(f"ranks: {number}" for number in numbers) + " |")
        click.echo("|---|" + "---|" * len(numbers))
        for stage in stages.split(",") if stages else box.stages:
            curve, cells = losses(box, stage), []
            for number in numbers:
                ended = run(box, stage, number)
                words, good = (
                    verdict(box, stage, curve) if ended.code == 0 else (ended.said[-300:], False)
                )
                cells.append(words)
                whole = whole and good
                box.restore()
            click.echo(f"| {stage} | " + " | ".join(cells) + " |")
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
