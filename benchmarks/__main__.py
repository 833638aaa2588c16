"""Speed and memory against named references, as one markdown table.

    python -m benchmarks                     every benchmark
    python -m benchmarks walk loss           some of them
    python -m benchmarks --output FILE       write the table as well

Every cell is measured in a fresh process; times are the best and the median of a few runs, memory
is the peak over the process with everything imported. On a machine that others use too, the best is
the number to compare.
"""

import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import torch

from benchmarks.measure import Benchmark, Measurement, Published, benchmarks_of, measure_apart

MODULES = (
    "walk",
    "loss",
    "cams",
    "puzzlecam",
    "sparseinst",
    "s2c",
    "segments",
    "sam",
    "crf",
    "seeds",
    "store",
    "repro",
)
"""Files of this folder that offer BENCHMARKS, in the order of the table."""

COLUMNS = (
    "what",
    "size",
    "best",
    "median",
    "memory",
    "reference",
    "time",
    "memory",
    "times faster",
)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(MODULES))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the table to this file, too.",
)
def main(names: tuple[str, ...], output: Path | None) -> None:
    """Run the benchmarks NAMES (all by default) and print their table."""
    lines = []
    for line in table(names or MODULES):
        click.echo(line)
        lines.append(line)
    if output is not None:
        output.write_text("\n".join(lines) + "\n")


def table(modules: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of the markdown page, each as soon as it is measured."""
    yield from header()
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + "---|" * len(COLUMNS)
    for module in modules:
        for number, benchmark in enumerate(benchmarks_of(module)):
            yield row(benchmark, *measured(module, number, benchmark))


def header(module: str = "benchmarks") -> Iterator[str]:
    """Yield what the numbers depend on: machine, versions, command."""
    versions = [
        f"{name} {importlib.metadata.version(name)}" for name in ("torch", "numpy", "scipy")
    ]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    yield f"- machine: {processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {gpu}"
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


def measured(
    module: str, number: int, benchmark: Benchmark
) -> tuple[Measurement, Measurement | Published | None]:
    """Return our numbers and the reference's, measured now unless they were published."""
    ours = measure_apart(module, number, "ours")
    if benchmark.reference is None or isinstance(benchmark.reference, Published):
        return ours, benchmark.reference
    return ours, measure_apart(module, number, "reference")


def row(benchmark: Benchmark, ours: Measurement, reference: Measurement | Published | None) -> str:
    """Return one line of the table."""
    cells = [
        benchmark.what,
        benchmark.size,
        _time(ours.best),
        _time(ours.median),
        _memory(ours.memory),
    ]
    if reference is None:
        cells += [benchmark.source, "", "", ""]
    else:
        seconds = reference.best if isinstance(reference, Measurement) else reference.seconds
        cells += [
            benchmark.source,
            _time(seconds),
            _memory(reference.memory),
            f"{seconds / ours.best:.3g}",
        ]
    return "| " + " | ".join(cells) + " |"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _memory(megabytes: float | None) -> str:
    if megabytes is None:
        return ""
    return f"{megabytes / 1e3:.2g} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


if __name__ == "__main__":
    main()
