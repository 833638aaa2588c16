"""Time, memory and disk of each stage with many images: `python -m benchmarks.scale`.

    python -m benchmarks.scale                      20,000 scenes; hours on two cores
    python -m benchmarks.scale --images 2000 --stages dataset,segments,cams

Trainings take a tenth of the preset's steps on its 400 scenes, however many images there are: a
step does not depend on their number. CAMs are computed at one scale with the plain classifier.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click
import psutil
import yaml

from benchmarks.__main__ import header
from tests.support.repository import ENVIRONMENT, ROOT, commit, copy_code, set_parameters

SCENES = 400
"""Images for which the preset's epochs are meant."""
TRAINED = ("classifier", "irnet", "semantic", "instance")
SETTINGS: Mapping[str, object] = {
    "segments.backend": "none",
    "classifier.method": "cam",
    "cams.scales": [1.0],
    "cams.flip": False,
    "runtime.workers": 0,
}
PROGRESS = re.compile(rb"(\d+)/\d+ \[")
"""Progress as tqdm writes it."""
INTERVAL = 1.0
"""Seconds between two samples of the memory."""


@dataclass(frozen=True)
class Sample:
    """Memory in bytes of a stage and its workers, and images or steps done, after some seconds."""

    seconds: float
    memory: int
    done: int


@click.command()
@click.option("--images", default=20_000, show_default=True, type=click.IntRange(40))
@click.option("--stages", default="", metavar="A,B", help="Stages to run; all by default.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to run, and to resume.")
def main(images: int, stages: str, folder: Path | None) -> None:
    """Run the graph on scenes and print a row per stage."""
    for line in header("benchmarks.scale"):
        click.echo(line)
    with tempfile.TemporaryDirectory(prefix="weakmask-scale-") as name:
        run = folder or Path(name) / "run"
        if not (run / "params.yaml").exists():
            prepare(run, images)
        click.echo("| stage | images or steps | time | per second | memory, first half | peak |")
        click.echo("|---|---|---|---|---|---|")
        for stage in stages.split(",") if stages else graph(run):
            click.echo(row(stage, watch(run, stage)))
        for line in disk(run, images):
            click.echo(line)


def prepare(folder: Path, images: int) -> None:
    """Copy this repository, with parameters for so many images."""
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text())
    epochs = {
        f"{stage}.epochs": parameters[stage]["epochs"] * 0.1 * SCENES / images for stage in TRAINED
    }
    copy_code(folder)
    set_parameters(folder, {**SETTINGS, **epochs, "dataset.scenes.images": images})
    commit(folder)


def graph(folder: Path) -> list[str]:
    """Return all stages in the order of dvc.yaml, in which they can run."""
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    return [
        f"{stage}@{item}" if item else stage
        for stage, entry in stages.items()
        for item in entry.get("foreach", [""])
    ]


def watch(folder: Path, stage: str) -> list[Sample]:
    """Run a stage and sample its memory and progress."""
    command = [sys.executable, "-m", "dvc", "repro", "-s", stage]
    samples, began = [], time.monotonic()
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "OMP_NUM_THREADS"}
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        while process.poll() is None:
            memory = sum(_proportional(one) for one in _family(process.pid))
            samples.append(Sample(time.monotonic() - began, memory, _progress(log)))
            time.sleep(INTERVAL)
        samples.append(Sample(time.monotonic() - began, 0, _progress(log)))
        if process.returncode:
            log.seek(0)
            raise click.ClickException(f"{stage}: {log.read()[-2000:].decode(errors='replace')}")
    return samples


def _progress(log: IO[bytes]) -> int:
    """Return what the last progress bar counted; reading leaves the writer's position alone."""
    with open(f"/proc/self/fd/{log.fileno()}", "rb") as file:
        file.seek(max(0, file.seek(0, 2) - 4096))
        found = PROGRESS.findall(file.read())
    return int(found[-1]) if found else 0


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _proportional(process: psutil.Process) -> int:
    """Return the memory of a process, with pages that several share split between them."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return 0


def row(stage: str, samples: list[Sample]) -> str:
    """Return a row of the table; memory must be as large in the first half as in the whole."""
    seconds, total = samples[-1].seconds, max(sample.done for sample in samples)
    half = max((sample.memory for sample in samples if 0 < sample.done <= total / 2), default=0)
    peak = max(sample.memory for sample in samples)
    cells = (
        stage,
        str(total or ""),
        f"{seconds:.0f} s",
        f"{total / seconds:.1f}" if total else "",
        f"{half / 2**20:.0f} MB" if half else "",
        f"{peak / 2**20:.0f} MB",
    )
    return "| " + " | ".join(cells) + " |"


def disk(folder: Path, images: int) -> Iterator[str]:
    """Yield a table of what the outputs take."""
    yield from ("", "| output | disk | an image |", "|---|---|---|")
    for path in sorted((folder / "data").iterdir()):
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        if size:
            yield f"| {path.name} | {size / 2**20:.1f} MB | {size / images / 1000:.1f} kB |"


if __name__ == "__main__":
    main()
