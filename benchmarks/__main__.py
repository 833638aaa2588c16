"""Speed, memory and disk against named references, as one markdown table.

    python -m benchmarks                     every benchmark
    python -m benchmarks --only walk,losses  some of them
    python -m benchmarks --output FILE       write the table to a file as well

Every cell is measured in a fresh process. Times are the best and the median of a few runs, memory
is the peak above that of the process with everything imported. On a shared machine, compare the
best times.
"""

import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import torch

from benchmarks import crf, disk, losses, onnx, repro, walk
from benchmarks.measure import Benchmark, Measurement, measure, measure_apart

BENCHMARKS = {
    "walk": walk.BENCHMARKS,
    "losses": losses.BENCHMARKS,
    "crf": crf.BENCHMARKS,
    "disk": disk.BENCHMARKS,
    "onnx": onnx.BENCHMARKS,
    "repro": repro.BENCHMARKS,
}
"""The rows of the table, by the module that measures them."""

COLUMNS = ("what", "size", "best", "median", "memory", "reference", "best", "memory", "ratio")


def names(context: click.Context, option: click.Parameter, text: str) -> tuple[str, ...]:
    """Parse names of BENCHMARKS with commas between them."""
    chosen = tuple(filter(None, text.split(","))) or tuple(BENCHMARKS)
    if unknown := set(chosen) - set(BENCHMARKS):
        raise click.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(BENCHMARKS)}")
    return chosen


@click.command()
@click.option("--only", default="", metavar="A,B", callback=names, help="Benchmarks to run.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it here.")
@click.option("--side", nargs=3, hidden=True, help="Module, row and side to measure here.")
def main(only: tuple[str, ...], output: Path | None, side: tuple[str, str, str] | None) -> None:
    """Run the benchmarks and print their table."""
    if side:
        benchmark = BENCHMARKS[side[0]][int(side[1])]
        click.echo(json.dumps(measure(getattr(benchmark, side[2]), benchmark.runs)))
        return
    lines = []
    for line in table(only):
        click.echo(line)
        lines.append(line)
    if output is not None:
        output.write_text("\n".join(lines) + "\n")


def table(modules: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of the page, each as soon as it is measured."""
    yield from header()
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + "---|" * len(COLUMNS)
    for module in modules:
        for number, benchmark in enumerate(BENCHMARKS[module]):
            yield row(module, number, benchmark)


def header(module: str = "benchmarks") -> Iterator[str]:
    """Yield what the numbers depend on: machine, versions, command."""
    packages = ("torch", "numpy", "scipy")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    yield f"- machine: {processor()}, {cores}, {gpu}"
    yield f"- versions: Python {platform.python_version()}, {', '.join(versions)}"
    yield f"- command: `{shlex.join(['python', '-m', module, *sys.argv[1:]])}`"
    yield ""


def processor() -> str:
    """Return the processor's name as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def row(module: str, number: int, benchmark: Benchmark) -> str:
    """Measure a benchmark and its reference, and return their line of the table."""
    if missing := [name for name in benchmark.packages if find_spec(name) is None]:
        return f"| {benchmark.what} | {benchmark.size} | not measured: no {', '.join(missing)} |"
    ours, reference = measure_apart(module, number, "ours"), benchmark.reference
    if not isinstance(reference, Measurement):
        reference = measure_apart(module, number, "reference")
    best, _, memory = _cells(reference)
    cells = [benchmark.what, benchmark.size, *_cells(ours)]
    cells += [benchmark.source, best, memory, f"{reference.best / ours.best:.3g}"]
    return "| " + " | ".join(cells) + " |"


def _cells(measured: Measurement) -> tuple[str, str, str]:
    """Return best and median in their unit, and the memory."""
    if measured.unit == "bytes":
        return f"{measured.best / 1e3:,.0f} kB", "", ""
    best, median = (
        f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"
        for value in (measured.best, measured.median)
    )
    memory = measured.memory
    if memory is None:
        return best, median, ""
    return best, median, f"{memory / 1e3:.2g} GB" if memory >= 1000 else f"{memory:.0f} MB"


if __name__ == "__main__":
    main()
