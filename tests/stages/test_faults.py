"""Every stage survives every fault: killed at any moment, without a worker, without disk space.

After a fault the stage reports it in one line. The next run resumes from each finished shard or
checkpoint, writes the bytes of the undisturbed run, and leaves no partial file. An input cut to
half is named, and nothing is written.

By default each fault happens once, to a stage of its own. With `WEAKMASK_FAULTS=20 pytest
tests/stages/test_faults.py` every stage suffers every fault: that many kills at random moments, and
up to as many at exact ones.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from tests.support.repository import BY_IMAGE, ENVIRONMENT, ROOT, run, set_parameters

COUNT = int(os.environ.get("WEAKMASK_FAULTS", "0"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 * (1 + COUNT))]
STAGES = [
    f"{stage}@{item}".removesuffix("@")
    for stage, entry in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
    for item in entry.get("foreach", [""])
]
RESUMABLE = (*BY_IMAGE, "classifier", "irnet", "semantic", "instance")
"""Stages with workers and unfinished work."""
RESUMED = re.compile(r"resumes\D*(\d+)")
PYTHON = (sys.executable, "-m")
FULL_DISK = """
mount -t tmpfs -o size="$1" tmpfs "$2.full" && cp -a "$2/." "$2.full/" &&
mount --bind "$2.full" "$2" && shift 2 && exec "$@"
"""
"""Run a command on a disk of "$1" bytes in the place of folder "$2"."""
Process = subprocess.Popen[str]
Ended = subprocess.CompletedProcess[str]


class Sandbox:
    """A copy of a finished run, to do harm to one stage of it."""

    def __init__(self, finished: Path, folder: Path, stage: str) -> None:
        self.finished, self.folder, self.stage = finished, folder, stage
        lock = yaml.safe_load((finished / "dvc.lock").read_text())["stages"][stage]
        self.deps, self.outs = ([entry["path"] for entry in lock[key]] for key in ("deps", "outs"))
        self.work = folder / ".work" / stage.partition("@")[0]

    def forget(self) -> None:
        """Remove what the stage wrote, and its unfinished work."""
        for file in self.written(self.folder):
            (self.folder / file).unlink()
        shutil.rmtree(self.work, ignore_errors=True)

    def inputs(self) -> list[Path]:
        """Return the files that the stage reads; the index stands for the tables next to it."""
        paths = [self.folder / path for path in self.deps if path.startswith("data/")]
        tables = [table for path in paths for table in path.parent.glob("images.csv")]
        return [path for path in (*paths, *tables) if path.is_file()]

    def written(self, root: Path) -> dict[str, bytes]:
        """Return the content of each file that the stage wrote, by path."""
        outs = [root / out for out in self.outs]
        files = [file for out in outs for file in ([out] if out.is_file() else out.rglob("*"))]
        return {str(file.relative_to(root)): file.read_bytes() for file in files if file.is_file()}

    def kept(self) -> int:
        """Return the finished shards, or the steps in the checkpoint, of unfinished work."""
        for checkpoint in self.work.rglob("checkpoint.pt"):
            return int(torch.load(checkpoint, weights_only=True)["step"])
        return len(list(self.work.rglob("shard-*.h5")))

    def start(self, before: Sequence[str] = PYTHON) -> Process:
        name, *argument = self.stage.split("@")
        command, pipe = [*before, f"stages.{name}", *argument], subprocess.PIPE
        return Process(command, cwd=self.folder, env=ENVIRONMENT, stderr=pipe, text=True)

    def wait(self, process: Process) -> Ended:
        """Wait for a process and, by its stderr, for its workers."""
        printed = process.communicate()[1]
        return Ended(process.args, process.returncode, stderr=printed)

    def run(self, before: Sequence[str] = PYTHON) -> Ended:
        return self.wait(self.start(before))

    def check_recovery(self, harmed: Ended) -> None:
        """Run the harmed stage again, and check both runs."""
        if harmed.returncode not in (0, -signal.SIGKILL):
            check_message(harmed, "")
        kept, again = self.kept(), self.run()
        assert again.returncode == 0, again.stderr
        resumed = RESUMED.search(again.stderr)
        assert (int(resumed[1]) if resumed else 0) >= kept, again.stderr
        assert self.written(self.folder) == self.written(self.finished)
        assert not list(self.work.rglob("*.part"))


def check_message(ended: Ended, word: str) -> None:
    """Check that a stage failed with a message in one line that contains `word`."""
    assert ended.returncode
    assert "Error: " in ended.stderr, ended.stderr
    assert word in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr


# Faults: each yields harmed runs; the stage must recover from one before it suffers the next.


def killed_at_random_moments(box: Sandbox) -> Iterator[Ended]:
    chance, seconds, kills = random.Random(box.stage), 4.0, 0
    while kills < max(1, COUNT):
        process = box.start()
        time.sleep(chance.uniform(0.3, 1) * seconds)
        process.kill()
        harmed = box.wait(process)
        if harmed.returncode:
            kills += 1
        else:
            seconds *= 0.7
        yield harmed


def killed_at_exact_moments(moment: str, box: Sandbox) -> Iterator[Ended]:
    """Kill at the first, second, fourth, ... time that the moment comes."""
    for number in range(max(1, COUNT)):
        crash = str(ROOT / "tests/support/crash.py"), moment, str(2**number)
        harmed = box.run((sys.executable, *crash))
        if harmed.returncode == 0:
            assert number, "the moment never came"
            break
        yield harmed


def worker_killed(box: Sandbox) -> Iterator[Ended]:
    """Kill a worker, ever sooner after the first appeared, until the stage notices."""
    for delay in (0.4, 0.2, 0.1, 0.0, 0.0):
        process = box.start()
        with suppress(psutil.NoSuchProcess):  # a worker with nothing left to do may be gone already
            worker = first_worker(process)
            time.sleep(delay)
            worker.kill()
        harmed = box.wait(process)
        if harmed.returncode:
            yield harmed
            return
        box.forget()
    pytest.fail("no worker was killed while the stage needed it")


def first_worker(process: Process) -> psutil.Process:
    """Wait for a worker of a stage, raise psutil.NoSuchProcess if the stage ends without one."""
    while process.poll() is None:
        for child in psutil.Process(process.pid).children():
            if "forkserver" in " ".join(child.cmdline()) and (workers := child.children()):
                return workers[0]
        time.sleep(0.01)
    raise psutil.NoSuchProcess(process.pid)


def full_disk(place: str, box: Sandbox) -> Iterator[Ended]:
    """Leave space for half of what the stage writes."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"]).returncode:
        pytest.skip("mounting a small disk needs `unshare -rm`")
    folder = box.folder / place
    for path in (folder, box.folder / f"{place}.full"):
        path.mkdir(exist_ok=True)
    there = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    new = [len(content) for content in box.written(box.finished).values()]
    pages, more = (sum(-(-size // 4096) for size in sizes) for sizes in (there, new))
    size = str(max(1, pages + more // 2) * 4096)
    harmed = box.run(["unshare", "-rm", "sh", "-c", FULL_DISK, "sh", size, str(folder), *PYTHON])
    check_message(harmed, "No space left")
    yield harmed


def input_cut_to_half(box: Sandbox) -> Iterator[Ended]:
    """Cut one file after the other; the stage must recover when all are whole again."""
    last = None
    for file in box.inputs():
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content[: len(content) // 2])
        harmed = box.run()
        file.write_bytes(content)
        if harmed.returncode:  # otherwise these parameters do not need this file
            check_message(harmed, file.name)
            assert not box.written(box.folder)
            last = harmed
        box.forget()
    assert last
    yield last


Fault = Callable[[Sandbox], Iterator[Ended]]
FAULTS: dict[str, tuple[Fault, str, Sequence[str]]] = {
    "killed": (killed_at_random_moments, "cams", STAGES),
    "killed in a write": (partial(killed_at_exact_moments, "write"), "scores@seeds", STAGES),
    "killed after a rename": (partial(killed_at_exact_moments, "rename"), "irnet", STAGES),
    "killed in a merge": (partial(killed_at_exact_moments, "merge"), "walk", BY_IMAGE),
    "worker killed": (worker_killed, "fields", RESUMABLE),
    "data/ full": (partial(full_disk, "data"), "seeds", STAGES),
    ".work/ full": (partial(full_disk, ".work"), "classifier", RESUMABLE),
    "input cut": (input_cut_to_half, "labels", [one for one in STAGES if one != "dataset"]),
}
"""Faults, the stage that suffers each by default, and all that can."""


@pytest.fixture(scope="module")
def copied(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of a finished run that DVC must find as it was once all stages have recovered."""
    folder = tmp_path_factory.mktemp("faults") / "run"
    shutil.copytree(finished, folder, symlinks=True)
    # a checkpoint after every step, and workers to kill
    set_parameters(folder, {"runtime.checkpoint": 0.001, "runtime.workers": 2})
    yield folder
    assert "up to date" in run(folder, "dvc", "status").stdout


@pytest.mark.parametrize(
    ("fault", "stage"),
    [
        (fault, one)
        for fault, (_, few, every) in FAULTS.items()
        for one in (every if COUNT else [few])
    ],
)
def test_stage_recovers(finished: Path, copied: Path, fault: str, stage: str) -> None:
    box = Sandbox(finished, copied, stage)
    box.forget()
    try:
        for harmed in FAULTS[fault][0](box):
            box.check_recovery(harmed)
            box.forget()
    finally:
        shutil.rmtree(copied / ".work", ignore_errors=True)
        shutil.rmtree(copied / "data")
        shutil.copytree(finished / "data", copied / "data", symlinks=True)
