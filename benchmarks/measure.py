"""Time and peak memory of one benchmark, taken in a process of its own so that no other leaves its
mark.
"""

import importlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

Setup = Callable[[], Callable[[], object]]
"""Makes the inputs and returns the call to measure."""


class Published(NamedTuple):
    """A number that was measured elsewhere: seconds, memory in MB, or None where it is not known."""

    seconds: float
    memory: float | None


@dataclass(frozen=True)
class Benchmark:
    """One row of the table: what is done to what size, our way and a reference's, and whose the
    reference is.
    """

    what: str
    size: str
    ours: Setup
    reference: Setup | Published | None
    source: str
    runs: int = 5


class Measurement(NamedTuple):
    """Best and median seconds of the runs, and the peak memory in MB over the process with
    everything imported.
    """

    best: float
    median: float
    memory: float


def measure(setup: Setup, runs: int) -> Measurement:
    """Set up, run once unmeasured unless runs is 1, then `runs` times; memory counts the inputs and
    every run.
    """
    before = _restart_peak()
    call = setup()
    if runs > 1:
        call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return Measurement(min(seconds), statistics.median(seconds), max(0.0, _peak() - before))


def measure_apart(module: str, number: int, side: str) -> Measurement:
    """Measure one side, `ours` or `reference`, of benchmark `number` of `benchmarks.<module>` in a
    fresh process.
    """
    command = [sys.executable, "-m", "benchmarks.measure", module, str(number), side]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(
            f"benchmark {module} {number} ({side}) failed:\n{finished.stderr.strip()}"
        )
    return Measurement(*json.loads(finished.stdout.splitlines()[-1]))


def benchmarks_of(module: str) -> tuple[Benchmark, ...]:
    """Return the rows a benchmark module offers as BENCHMARKS."""
    rows: tuple[Benchmark, ...] = importlib.import_module(f"benchmarks.{module}").BENCHMARKS
    return rows


def _restart_peak() -> float:
    """Let the peak begin again at the memory now in use, where the system can (Linux), and return
    it in MB.
    """
    with suppress(
        OSError
    ):  # elsewhere imports may have peaked above what they kept: a little growth goes unseen
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    """Return the peak resident memory in MB.

    On Linux from the process's own status: getrusage also counts what its parent held when it
    started it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def main() -> None:
    """Measure the side of the benchmark that the command line names and print it as one line of
    JSON.
    """
    module, number, side = sys.argv[1:]
    benchmark = benchmarks_of(module)[int(number)]
    print(json.dumps(measure(getattr(benchmark, side), benchmark.runs)))


if __name__ == "__main__":
    main()
