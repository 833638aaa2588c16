"""The harness: time and peak memory of one benchmark, in a process of its own."""

import atexit
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Bytes(float):
    """What a call wrote, measured in place of the time that the call took."""


class Measurement(NamedTuple):
    """Best of the runs in seconds or bytes, the peak in MB above the imported process, and the
    median; of what was measured elsewhere, the best and, where it is known, the peak.
    """

    best: float
    memory: float | None
    median: float = 0.0
    unit: str = "s"


Setup = Callable[[], Callable[[], object]]
"""Makes the inputs and returns the call to measure."""


@dataclass(frozen=True)
class Benchmark:
    """One row of the table.

    what, size: what is done to how much; ours, reference: the calls to compare; source: whose the
    reference is; packages: what the row cannot be measured without, of the optional ones.
    """

    what: str
    size: str
    ours: Setup
    reference: Setup | Measurement
    source: str
    runs: int = 5
    packages: tuple[str, ...] = ()


def measure(setup: Setup, runs: int) -> Measurement:
    """Set up, run once unmeasured unless `runs` is 1, then measure `runs` times."""
    before = _restart_peak()
    call = setup()
    if runs > 1:
        call()
    values, unit = [], "s"
    for _ in range(runs):
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        if isinstance(result, Bytes):
            unit = "bytes"
        values.append(result if isinstance(result, Bytes) else seconds)
    memory = max(0.0, _peak() - before)
    return Measurement(min(values), memory, statistics.median(values), unit)


def measure_apart(module: str, number: int, side: str) -> Measurement:
    """Measure `ours` or `reference` of row `number` of a module in a fresh process."""
    command = [sys.executable, "-m", "benchmarks", "--side", module, str(number), side]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(
            f"benchmark {module} {number} ({side}) failed:\n{finished.stderr.strip()}"
        )
    return Measurement(*json.loads(finished.stdout.splitlines()[-1]))


def temporary_folder() -> Path:
    """Return a new folder that is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="weakmask-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _restart_peak() -> float:
    """Reset the peak to the memory now in use, where the system can (Linux); return it in MB."""
    with suppress(OSError):  # elsewhere imports may have peaked higher: some growth goes unseen
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
