"""A process and those it started, watched: memory over time, how many images were done, and how
busy the GPUs were.
"""

import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import IO

import psutil

EVERY = 1.0
"""Seconds between two looks at the memory."""
DONE = re.compile(rb"(\d+)/(\d+) \[")
"""Progress as tqdm writes it."""
GPUS = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")
"""Tells for each GPU in how many percent of the last moments it computed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory in bytes after so many seconds, shared pages counted once, images or steps done until
    then, and percent of GPUs busy.
    """

    seconds: float
    memory: int
    done: int
    busy: float | None = None


@dataclass(slots=True)
class Watched:
    """What a command did: its samples, all of what it wrote, how long it took, and its exit status."""

    samples: list[Sample] = field(default_factory=list)
    said: bytearray = field(default_factory=bytearray)
    seconds: float = 0.0
    code: int = 0

    def save(self, path: Path) -> None:
        """Write all but what the command said."""
        samples = [astuple(sample) for sample in self.samples]
        path.write_text(
            json.dumps({"seconds": self.seconds, "code": self.code, "samples": samples})
        )

    @classmethod
    def load(cls, path: Path) -> "Watched":
        """Read what save wrote."""
        kept = json.loads(path.read_text())
        samples = [Sample(*sample) for sample in kept["samples"]]
        return cls(samples, seconds=kept["seconds"], code=kept["code"])

    @property
    def total(self) -> int:
        """Images or steps that the command did; 0 where it counted none."""
        return max((sample.done for sample in self.samples), default=0)

    @property
    def peak(self) -> int:
        """Most memory, in bytes."""
        return max((sample.memory for sample in self.samples), default=0)

    @property
    def busy(self) -> float | None:
        """Mean percent of the time in which the GPUs computed; None without GPU."""
        seen = [sample.busy for sample in self.samples if sample.busy is not None]
        return statistics.mean(seen) if seen else None

    @property
    def working(self) -> list[Sample]:
        """Samples from the first image done to the last; after that results are joined and written."""
        end = next(
            (number for number, sample in enumerate(self.samples) if sample.done == self.total), 0
        )
        return [sample for sample in self.samples[: end + 1] if sample.done > 0]

    def parts(self, count: int) -> list[tuple[float, int]]:
        """Images a second and most memory in each of `count` equal stretches of the work; none of
        work too short to be seen.
        """
        busy = self.working
        if len(busy) < 2 * count:
            return []
        first, last = busy[0].done, busy[-1].done
        cuts = [first + (last - first) * part / count for part in range(count + 1)]
        found = []
        for low, high in itertools.pairwise(cuts):
            inside = [sample for sample in busy if low <= sample.done <= high]
            if len(inside) < 2 or inside[-1].done == inside[0].done:
                return []
            rate = (inside[-1].done - inside[0].done) / (inside[-1].seconds - inside[0].seconds)
            found.append((rate, max(sample.memory for sample in inside)))
        return found


def watch(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Watched:
    """Run a command to its end and watch it."""
    found, began = Watched(), time.monotonic()
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=_listen, args=(process.stdout, found.said))
        reader.start()
        while process.poll() is None:
            seconds, done = time.monotonic() - began, _progress(found.said)
            found.samples.append(Sample(seconds, memory(process.pid), done, gpus_busy()))
            time.sleep(EVERY)
        reader.join()
    found.seconds, found.code = time.monotonic() - began, process.returncode
    if found.samples:
        last = found.samples[-1]
        found.samples.append(Sample(found.seconds, last.memory, _progress(found.said)))
    return found


def _listen(stream: IO[bytes], said: bytearray) -> None:
    while data := os.read(stream.fileno(), 65536):
        said += data


def _progress(said: bytearray) -> int:
    found = DONE.findall(bytes(said[-4096:]))
    return int(found[-1][0]) if found else 0


def memory(pid: int) -> int:
    """Bytes that a process and all below it hold, pages that several share counted once; 0 when it
    has ended.
    """
    return sum(_own(process) for process in _family(pid))


def gpus_busy() -> float | None:
    """Mean percent in which this machine's GPUs compute now; None where the driver's tool finds
    none.
    """
    if shutil.which(GPUS[0]) is None:
        return None
    said = subprocess.run(GPUS, capture_output=True, text=True, check=False).stdout
    found = [float(line) for line in said.split() if line.isdecimal()]
    return statistics.mean(found) if found else None


def _family(pid: int) -> Iterator[psutil.Process]:
    try:
        first = psutil.Process(pid)
        yield first
        yield from first.children(recursive=True)
    except psutil.NoSuchProcess:
        return


def _own(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return 0
