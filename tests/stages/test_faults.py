"""Every stage survives every fault: killed at any moment, without a worker, without disk space.

After a fault the stage reports it in one line. The next run resumes from each finished shard or
checkpoint, writes the bytes of the undisturbed run, and leaves no partial file. An input cut to
half is named, and nothing is written.

By default one stage of each engine suffers every fault and all others one kill. With
`WEAKMASK_FAULTS=20 pytest tests/stages/test_faults.py` every stage suffers all of them: that many
kills at random moments, and that many moments of each exact kind.
"""

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import torch
import yaml

from tests.support.repository import ENVIRONMENT, ROOT, set_parameters, up_to_date

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

COUNT = int(os.environ.get("WEAKMASK_FAULTS", "0"))
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
Process = subprocess.Popen[str]
STAGES = [
    f"{stage}@{item}".removesuffix("@")
    for stage, entry in GRAPH.items()
    for item in entry.get("foreach", [""])
]
THOROUGH = ("cams", "irnet")
"""A per-image stage and a training, which suffer every fault in each run of the tests."""
MERGED = ("segments", "cams", "seeds", "fields", "walk", "labels", "predictions")
LIMIT = 300
"""Seconds after which a stage counts as hanging."""
RESUMED = re.compile(r"(?:goes on|resum\w*)\D*(\d+)")
FULL_DISK = """
mount -t tmpfs -o size="$1" tmpfs "$2.full" && cp -a "$2/." "$2.full/" &&
mount --bind "$2.full" "$2" && shift 2 && exec "$@"
"""
"""Run a command on a disk of "$1" bytes in the place of folder "$2"."""


class Ended(NamedTuple):
    """How a stage's process ended: exit status (negative: the signal), and what it printed."""

    code: int
    printed: str


class Sandbox:
    """A copy of a finished run, to do harm to one stage of it."""

    def __init__(self, finished: Path, folder: Path) -> None:
        self.finished, self.folder = finished, folder
        shutil.copytree(finished, folder, symlinks=True)
        # a checkpoint after every step, and workers to kill
        set_parameters(folder, {"runtime.checkpoint": 0.001, "runtime.workers": 2})
        self.lock = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
        self.seconds = 3.0  # of an undisturbed run of the current stage

    def restore(self) -> None:
        shutil.rmtree(self.folder / ".work", ignore_errors=True)
        shutil.rmtree(self.folder / "data")
        shutil.copytree(self.finished / "data", self.folder / "data", symlinks=True)

    def forget(self, stage: str) -> None:
        """Remove what a stage wrote, and its unfinished work."""
        for file in self.digests(self.folder, stage):
            (self.folder / file).unlink()
        shutil.rmtree(self.work(stage), ignore_errors=True)

    def inputs(self, stage: str) -> list[Path]:
        """Return the files that a stage reads; the index stands for the tables next to it."""
        found = []
        for dep in self.lock[stage]["deps"]:
            path = self.folder / dep["path"]
            if dep["path"].startswith("data/"):
                found += sorted(path.rglob("*.*")) if path.is_dir() else [path]
                if path.name == "index.json":
                    found += sorted(path.parent.glob("*.csv"))
        return [path for path in found if path.is_file()]

    def digests(self, root: Path, stage: str) -> dict[str, str]:
        """Return the digest of each file that a stage wrote, by path."""
        outs = [root / out["path"] for out in self.lock[stage]["outs"]]
        files = [file for out in outs for file in ([out] if out.is_file() else out.rglob("*"))]
        return {
            str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in files
            if file.is_file()
        }

    def is_whole(self, stage: str) -> bool:
        """Return whether a stage wrote the bytes of the undisturbed run."""
        return self.digests(self.folder, stage) == self.digests(self.finished, stage)

    def work(self, stage: str) -> Path:
        return self.folder / ".work" / stage.partition("@")[0]

    def kept(self, stage: str) -> int:
        """Return the finished shards, or the steps in the checkpoint, of unfinished work."""
        for checkpoint in self.work(stage).rglob("checkpoint.pt"):
            return int(torch.load(checkpoint, weights_only=True)["step"])
        return len(list(self.work(stage).rglob("shard-*.h5")))

    def start(self, stage: str, before: Sequence[str] = (sys.executable, "-m")) -> Process:
        name, _, argument = stage.partition("@")
        return subprocess.Popen(
            [*before, f"stages.{name}", *([argument] if argument else [])],
            cwd=self.folder,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self, process: Process) -> Ended:
        """Wait for a process and, by its stderr, for its workers."""
        try:
            printed = process.communicate(timeout=LIMIT)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"hangs: {process.communicate()[1][-500:]}")
        return Ended(process.returncode, printed)

    def check_recovery(self, stage: str, harmed: Ended) -> None:
        """Run a harmed stage again, and check both runs."""
        if harmed.code not in (0, -signal.SIGKILL):
            check_message(harmed, "")
        kept, start = self.kept(stage), time.monotonic()
        again = self.wait(self.start(stage))
        self.seconds = max(self.seconds, time.monotonic() - start)
        assert again.code == 0, again.printed
        resumed = RESUMED.search(again.printed)
        assert (int(resumed[1]) if resumed else 0) >= kept, again.printed
        assert self.is_whole(stage)
        assert not list(self.work(stage).rglob("*.part"))


def check_message(ended: Ended, word: str) -> None:
    """Check that a stage failed with a message in one line that contains `word`."""
    assert ended.code
    assert "Error: " in ended.printed, ended.printed
    assert word in ended.printed, ended.printed
    assert "Traceback" not in ended.printed, ended.printed


@pytest.fixture(scope="module")
def sandbox(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A sandbox that DVC must find as it was once all stages have recovered."""
    box = Sandbox(finished, tmp_path_factory.mktemp("faults") / "run")
    yield box
    assert up_to_date(box.folder)


@pytest.fixture
def stage(request: pytest.FixtureRequest, sandbox: Sandbox) -> Iterator[str]:
    sandbox.forget(request.param)
    yield request.param
    if not sandbox.is_whole(request.param):
        sandbox.restore()


every_stage = pytest.mark.parametrize("stage", STAGES, indirect=True)
thorough = pytest.mark.parametrize("stage", STAGES if COUNT else THOROUGH, indirect=True)


@every_stage
def test_killed_at_random_moments(sandbox: Sandbox, stage: str) -> None:
    chance = random.Random(stage)
    sandbox.seconds = 3.0
    for _ in range(max(1, COUNT)):
        sandbox.forget(stage)
        process = sandbox.start(stage)
        time.sleep(chance.uniform(0.3, 1) * sandbox.seconds)
        process.kill()
        sandbox.check_recovery(stage, sandbox.wait(process))


@pytest.mark.parametrize("moment", ["write", "rename", "merge"])
@thorough
def test_killed_at_exact_moments(sandbox: Sandbox, stage: str, moment: str) -> None:
    if moment == "merge" and stage not in MERGED:
        pytest.skip(f"{stage} merges no shards")
    crash = sys.executable, str(ROOT / "tests/support/crash.py"), moment
    for number in range(max(1, COUNT)):
        sandbox.forget(stage)
        harmed = sandbox.wait(sandbox.start(stage, (*crash, str(2**number))))
        if harmed.code == 0:
            break
        sandbox.check_recovery(stage, harmed)
    assert number or harmed.code, "the moment never came"


@thorough
def test_a_killed_worker(sandbox: Sandbox, stage: str) -> None:
    chance = random.Random(stage)
    for patience in (0.5, 0.1, 0.0, 0.0, 0.0):  # workers of a short stage may be gone already
        sandbox.forget(stage)
        process = sandbox.start(stage)
        found = kill_worker(process, chance, chance.uniform(0, patience))
        harmed = sandbox.wait(process)
        if found:
            sandbox.check_recovery(stage, harmed)
            return
    pytest.skip(f"{stage} has no worker process, or none for long enough")


def kill_worker(process: Process, chance: random.Random, delay: float) -> bool:
    """Kill a worker `delay` seconds after the first appeared; return whether there was one."""
    while process.poll() is None:
        try:
            servers = psutil.Process(process.pid).children()
            workers = [child for server in servers for child in server.children()]
            workers += [one for one in servers if "multiprocessing" not in " ".join(one.cmdline())]
            if workers:
                time.sleep(delay)
                chance.choice(workers).kill()
                return True
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("place", ["data", ".work"])
@thorough
def test_a_full_disk(sandbox: Sandbox, stage: str, place: str) -> None:
    """There is space for half of what the stage writes."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"]).returncode:
        pytest.skip("mounting a small disk needs `unshare -rm`")
    folder, full = sandbox.folder / place, sandbox.folder / f"{place}.full"
    folder.mkdir(exist_ok=True)
    full.mkdir(exist_ok=True)
    files = [file for file in folder.rglob("*") if file.is_file()]
    written = [sandbox.finished / file for file in sandbox.digests(sandbox.finished, stage)]
    size = sum(-(-file.stat().st_size // 4096) * 4096 for file in files)
    size += sum(file.stat().st_size for file in written) // 2
    mounted = ["unshare", "-rm", "sh", "-c", FULL_DISK, "sh", str(max(size, 4096)), str(folder)]
    harmed = sandbox.wait(sandbox.start(stage, (*mounted, sys.executable, "-m")))
    if harmed.code:
        check_message(harmed, "No space left")
    sandbox.check_recovery(stage, harmed)


@thorough
def test_an_input_cut_to_half(sandbox: Sandbox, stage: str) -> None:
    for file in sandbox.inputs(stage):
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content[: len(content) // 2])
        harmed = sandbox.wait(sandbox.start(stage))
        if harmed.code:  # else these parameters do not need this file
            check_message(harmed, file.name)
            assert not sandbox.digests(sandbox.folder, stage)
        else:
            assert sandbox.is_whole(stage)
        file.write_bytes(content)
        sandbox.forget(stage)
    sandbox.check_recovery(stage, sandbox.wait(sandbox.start(stage)))
