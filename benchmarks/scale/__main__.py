"""Run the graph on many scenes and print what each stage takes: images a second, memory, disk, and
what is flat.

    python -m benchmarks.scale                                20,000 scenes; more than two hours on two cores
    python -m benchmarks.scale --images 2000 --plot scale.png

Trainings take a tenth of the preset's steps on its 400 scenes, whatever the number of images: a
step does not know of that number. Maps are made at one scale.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from benchmarks.__main__ import header
from benchmarks.scale import sheet
from benchmarks.scale.plot import draw
from benchmarks.scale.watch import Watched, watch
from pipeline.data.index import Index
from tests.support.repository import (
    ENVIRONMENT,
    ROOT,
    commit,
    copy_code,
    run,
    set_parameters,
    up_to_date,
)

SCENES = 400
"""Images for which the preset's epochs are meant."""
SETTINGS: dict[str, object] = {
    "segments.backend": "none",
    "classifier.method": "cam",
    "cams.scales": [1.0],
    "cams.flip": False,
    "runtime.workers": 0,
}
TRAINED = ("classifier", "irnet", "semantic", "instance")
PUBLISHED, NPY = 10582, 12 * 2**30
"""Images of VOC's train_aug, and the bytes that the published CAMs of IRNet take of them."""
STRETCHES = 4
REPEATS = 5


@click.command()
@click.option("--images", default=20000, show_default=True, type=click.IntRange(40))
@click.option(
    "--stages",
    default="",
    metavar="A,B",
    help="Stages to run, in the order of the graph; all by default.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw memory and speed to this file.",
)
@click.option(
    "--rates",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what benchmarks.scale.sheet reads.",
)
@click.option(
    "--training",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Share of the preset's training steps.",
)
@click.option(
    "--whole",
    is_flag=True,
    help="The preset's own parameters: all scales, segments and its classifier.",
)
@click.option(
    "--without-dvc",
    is_flag=True,
    help="Run the stages' own commands, on a machine that has no DVC.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Where to run, kept with what was measured: a call that was cut off is gone on with.",
)
def main(
    images: int,
    stages: str,
    plot: Path | None,
    rates: Path | None,
    training: float,
    whole: bool,
    without_dvc: bool,
    folder: Path | None,
) -> None:
    """Print a table of stages; the exit status is 1 if one failed."""
    for line in header("benchmarks.scale"):
        click.echo(line)
    with tempfile.TemporaryDirectory(prefix="weakmask-scale-") as name:
        box = folder or Path(name) / "run"
        if not (box / "params.yaml").exists():
            prepare(box, images, training, {} if whole else SETTINGS)
        done: dict[str, Watched] = {}
        click.echo(
            "| stage | images or steps | time | a second | first to last quarter | memory | first to last quarter | GPUs busy |"
        )
        click.echo("|---|---|---|---|---|---|---|---|")
        for stage in stages.split(",") if stages else names(box):
            done[stage] = watched(box, stage, without_dvc)
            click.echo(row(stage, done[stage]))
            if done[stage].code:
                click.echo(done[stage].said.decode(errors="replace")[-2000:], err=True)
                sys.exit(1)
        for line in (*disk(box), *([] if without_dvc else unchanged(box))):
            click.echo(line)
        if rates:
            rates.write_text(json.dumps(measured(box, done), indent=1) + "\n")
        if plot:
            draw(done, plot)


def prepare(box: Path, images: int, training: float, settings: Mapping[str, object]) -> None:
    """A copy of this repository with parameters for so many images and such a share of the training
    steps.
    """
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text())
    copy_code(box)
    share = {
        f"{stage}.epochs": parameters[stage]["epochs"] * training * SCENES / images
        for stage in TRAINED
    }
    set_parameters(box, {**settings, **share, "dataset.scenes.images": images})
    commit(box)


def watched(box: Path, stage: str, without_dvc: bool) -> Watched:
    """Run a stage and watch it; of one that an earlier call has finished here, what was seen then."""
    kept = box / f".scale/{stage}.json"
    if without_dvc and kept.exists():
        return Watched.load(kept)
    name, _, argument = stage.partition("@")
    command = (
        [f"stages.{name}", *filter(None, [argument])]
        if without_dvc
        else ["dvc", "repro", "-s", stage]
    )
    found = watch([sys.executable, "-m", *command], box, ENVIRONMENT | _threads())
    if kept.exists() and b"didn't change" in found.said:
        return Watched.load(kept)
    if not found.code:
        kept.parent.mkdir(exist_ok=True)
        found.save(kept)
    return found


def _threads() -> dict[str, str]:
    """As many threads as cores: the tests' environment allows one."""
    return {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}


def names(box: Path) -> list[str]:
    """All stages in the order of dvc.yaml, which is one in which they can run."""
    graph = yaml.safe_load((box / "dvc.yaml").read_text())["stages"]
    return [
        f"{stage}@{item}" if item else stage
        for stage, entry in graph.items()
        for item in entry.get("foreach", [""])
    ]


def row(stage: str, found: Watched) -> str:
    """A row of the table; the last columns compare the first quarter of the work with the last."""
    parts = found.parts(STRETCHES)
    rate = f"{found.total / found.seconds:.1f}" if found.total else ""
    speed = f"{parts[0][0]:.1f} to {parts[-1][0]:.1f}" if parts else ""
    memory = f"{parts[0][1] / 2**20:.0f} to {parts[-1][1] / 2**20:.0f} MB" if parts else ""
    cells = (
        stage,
        str(found.total or ""),
        f"{found.seconds:.0f} s",
        rate,
        speed,
        f"{found.peak / 2**20:.0f} MB",
        memory,
        "" if found.busy is None else f"{found.busy:.0f} %",
    )
    return "| " + " | ".join(cells) + " |"


def disk(box: Path) -> Iterator[str]:
    """What the outputs take, in all and for each image, beside the published CAMs."""
    yield ""
    yield "| output | disk | an image |"
    yield "|---|---|---|"
    images = len((box / "data/dataset/images.csv").read_text().splitlines()) - 1
    whole = 0
    for path in sorted((box / "data").iterdir()):
        size = sum(file.stat().st_size for file in _files(path))
        if size:
            whole += size
            yield f"| {path.name} | {size / 2**20:.1f} MB | {size / images / 1000:.1f} kB |"
    yield f"| all | {whole / 2**30:.2f} GB | {whole / images / 1000:.1f} kB |"
    yield f"| published CAMs of {PUBLISHED} images (npy) | {NPY / 2**30:.0f} GB | {NPY / PUBLISHED / 1000:.0f} kB |"


def measured(box: Path, done: Mapping[str, Watched]) -> dict[str, Any]:
    """The rates of a run and where they come from."""
    index = Index.load(box / "data/dataset")
    train = len(index.select("train"))
    pixels = statistics.mean(image.height * image.width for image in index.values()) / 1e6
    machine, _, command, _ = (line.removeprefix("- ") for line in header("benchmarks.scale"))
    outputs = {path.name: path.stat().st_size for path in (box / "data").glob("*.h5")}
    found = sheet.rates(
        yaml.safe_load((box / "params.yaml").read_text()),
        sheet.Data(train, len(index) - train, pixels, ""),
        {stage: watched.seconds for stage, watched in done.items()},
        outputs,
    )
    return {"machine": machine, "command": command, **found}


def _files(path: Path) -> Sequence[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def unchanged(box: Path) -> Iterator[str]:
    """How long `dvc repro` takes that finds nothing to do."""
    yield ""
    if not up_to_date(box):
        yield "dvc repro is not timed: some stages have not run"
        return
    seconds = []
    for _ in range(REPEATS):
        began = time.monotonic()
        run(box, "dvc", "repro")
        seconds.append(time.monotonic() - began)
    yield f"dvc repro, nothing changed: {statistics.median(seconds):.2f} s (slowest of {REPEATS}: {max(seconds):.2f} s)"


if __name__ == "__main__":
    main()
