"""What can go wrong with a stage, done to it: after each fault it must say so, and running it again
must give the same bytes.

Whatever was finished may not be done again, but for what was under way: a shard, or the steps since
a checkpoint.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.faults.box import Box, Ended
from pipeline.data.index import HEADER, TABLE
from pipeline.data.masks import MASKS
from tests.support.repository import set_parameters

SABOTAGE = str(Path(__file__).with_name("sabotage.py"))
PAGE = 4096
"""Bytes in which a tmpfs counts."""
ROOM = 64 << 20
"""Bytes of a disk that is no longer full."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault and what came of it: seconds of work lost, and what was wrong (empty: survived)."""

    stage: str
    fault: str
    lost: float
    wrong: str

    @property
    def survived(self) -> bool:
        """Whether the same bytes came out, nothing finished was done again, and every message
        helped.
        """
        return not self.wrong


def killed(box: Box, stage: str, count: int, chance: random.Random) -> Iterator[Trial]:
    """SIGKILL at `count` moments, anywhere from the start of Python to the end of an undisturbed
    run.
    """
    box.forget(stage)
    whole = box.run(stage)
    if wrong := _differs(box, stage, whole, 0):
        raise RuntimeError(f"{stage} does not even run undisturbed to the same bytes: {wrong}")
    for _ in range(count):
        box.forget(stage)
        began = time.time()
        process = box.start("-m", *box.command(stage))
        time.sleep(chance.uniform(0, whole.seconds))
        process.kill()
        yield _go_on(box, stage, "SIGKILL", began, box.wait(process, began))


def sabotaged(box: Box, stage: str, most: int) -> Iterator[Trial]:
    """SIGKILL inside a file's write, right after its renaming, and inside the merge of shards; at
    most `most` places each.
    """
    for moment in ("flush", "rename", "copy"):
        box.forget(stage)
        counted = box.run(stage, (SABOTAGE, moment, "0"))
        calls = int(counted.said.strip().rpartition(" ")[2]) if counted.code == 0 else 0
        for number in _spread(calls, most):
            box.forget(stage)
            began = time.time()
            ended = box.run(stage, (SABOTAGE, moment, str(number)))
            yield _go_on(box, stage, f"SIGKILL at {moment}", began, ended)


def without_worker(box: Box, stage: str, chance: random.Random) -> Iterator[Trial]:
    """SIGKILL to one of two worker processes; nothing is tried on a stage that has none.

    Workers of a short stage may be gone before their time comes: then again, with less patience.
    """
    with _workers(box, 2):
        for patience in (0.5, 0.1, 0.0, 0.0, 0.0):
            box.forget(stage)
            began = time.time()
            process = box.start("-m", *box.command(stage))
            if _kill_worker(process, chance, chance.uniform(0, patience)):
                yield _go_on(box, stage, "worker killed", began, box.wait(process, began))
                return
            box.wait(process, began)


def full(box: Box, stage: str) -> Iterator[Trial]:
    """A disk with room for half of what the stage writes, under data/ and under .work/; needs the
    right to mount.

    The size of what the work needs is not known, so .work/ has room for half of the result as well.
    """
    room = _pages(box.size(stage)) // 2
    for place in ("data", ".work"):
        box.forget(stage)
        with _disk(box.folder / place, room) as grow:
            began = time.time()
            ended = box.run(stage)
            if ended.code == 0:
                continue
            wrong = _unhelpful(ended, "No space left")
            grow()
            trial = _go_on(box, stage, "disk full", began, ended)
            yield Trial(stage, trial.fault, trial.lost, wrong or trial.wrong)


def truncated(box: Box, stage: str) -> Iterator[Trial]:
    """Each file that the stage depends on, cut to half: the message names it and nothing is
    written, or, where these parameters do not need it, the result is right.
    """
    for path in box.inputs[stage]:
        read = box.folder / path
        files = sorted(read.iterdir()) if read.is_dir() else [read]
        if read.name == HEADER:  # it stands for what lies beside it
            files += [read.with_name(name) for name in (TABLE, MASKS)]
        for file in files:
            box.forget(stage)
            content = file.read_bytes()
            file.unlink()
            file.write_bytes(content[: len(content) // 2])
            ended = box.run(stage)
            if ended.code == 0:
                wrong = _differs(box, stage, ended, 0)
            else:
                wrong = _unhelpful(ended, file.name)
                if box.wrote(stage):
                    wrong += f"; wrote {', '.join(box.wrote(stage))}"
            file.write_bytes(content)
            shutil.rmtree(box.work(stage), ignore_errors=True)
            again = box.run(stage)
            yield Trial(stage, "input cut to half", 0.0, wrong or _differs(box, stage, again, 0))


def _go_on(box: Box, stage: str, fault: str, began: float, ended: Ended) -> Trial:
    """Run again after a fault, and judge both."""
    kept, last = box.kept(stage)
    lost = began + ended.seconds - max(last, began)
    wrong = "" if ended.code in (0, -signal.SIGKILL) and not ended.hung else _unhelpful(ended, "")
    again = box.run(stage)
    return Trial(stage, fault, lost, wrong or _differs(box, stage, again, kept))


def _differs(box: Box, stage: str, ended: Ended, kept: int) -> str:
    """What is wrong with a run that should have gone on from what was kept and ended well."""
    if ended.code:
        return f"ended with {ended.code}: {ended.said[-500:]}"
    if ended.went_on_from < kept:
        return f"{kept} shards or steps were kept, it went on from {ended.went_on_from}"
    wrote, right = box.wrote(stage), box.right[stage]
    names = sorted(name for name in {*wrote, *right} if wrote.get(name) != right.get(name))
    if names:
        return f"other bytes in {', '.join(names)}"
    if box.work(stage).exists() and any(box.work(stage).rglob("*.part")):
        return "left a .part file"
    return ""


def _unhelpful(ended: Ended, word: str) -> str:
    """What is wrong with how a stage ended that could not do its work."""
    if ended.code == 0:
        return "ended as if nothing had been"
    if "Traceback" in ended.said:
        return f"a traceback: {ended.said[-700:]}"
    if "Error: " not in ended.said or word not in ended.said:
        return f"a message without {word!r}: {ended.said[-500:]}"
    return ""


def _spread(calls: int, most: int) -> list[int]:
    """At most `most` numbers from 1 to `calls`, evenly, the last one included."""
    return sorted({calls - calls * part // most for part in range(most)} - {0}) if calls else []


def _kill_worker(process: subprocess.Popen[str], chance: random.Random, wait: float) -> bool:
    """Kill a worker of a process `wait` seconds after it has one; whether there was one."""
    me = psutil.Process(process.pid)
    command = me.cmdline()
    while process.poll() is None:
        try:
            children = me.children()
            workers = [child for child in children if child.cmdline() == command]
            workers += [other for child in children for other in child.children()]
            if workers:
                time.sleep(wait)
                chance.choice(workers).kill()
                return True
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.01)
    return False


@contextmanager
def _workers(box: Box, count: int) -> Iterator[None]:
    """Another number of worker processes, on which no result depends."""
    parameters = box.folder / "params.yaml"
    before = parameters.read_bytes()
    set_parameters(box.folder, {"runtime.workers": count})
    try:
        yield
    finally:
        parameters.write_bytes(before)


@contextmanager
def _disk(folder: Path, room: int) -> Iterator[Callable[[], None]]:
    """A small disk in the place of a folder, with its files and `room` bytes; yields what makes it
    large.
    """
    folder.mkdir(exist_ok=True)
    held = folder.with_name(f"{folder.name}.held")
    shutil.copytree(folder, held)
    used = sum(_pages(file.stat().st_size) for file in held.rglob("*") if file.is_file())
    # of a tmpfs, size 0 would be none at all
    _mount("-t", "tmpfs", "-o", f"size={max(PAGE, used + room)}", "tmpfs", str(folder))
    try:
        shutil.copytree(held, folder, dirs_exist_ok=True)
        yield lambda: _mount("-o", f"remount,size={used + ROOM}", str(folder))
    finally:
        written = folder.with_name(f"{folder.name}.written")
        shutil.copytree(folder, written)
        subprocess.run(["umount", str(folder)], check=True)
        shutil.rmtree(folder)
        written.rename(folder)
        shutil.rmtree(held)


def can_mount() -> bool:
    """Whether this process may mount."""
    return (
        os.geteuid() == 0
        and subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode
        == 0
    )


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


KINDS: Mapping[str, str] = {
    "kill": "SIGKILL at random moments",
    "sabotage": "SIGKILL within a write, after a renaming, within a merge",
    "worker": "SIGKILL to a worker process",
    "full": "a full disk",
    "truncate": "an input cut to half",
}
"""What can be tried."""
