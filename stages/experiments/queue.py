"""DVC's queue by its documented commands: put experiments into it, watch them, read their logs.

https://dvc.org/doc/command-reference/queue
"""

import json
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.experiments.repository import PARAMETERS, ExperimentError, dvc, git, read_yaml

LONGEST = 15
"""Seconds between two looks at the queue at most; each takes DVC about half a second of one core.
"""
SILENT = 6
"""Looks in a row without a worker or a running process after which the worker is taken for dead.

On a busy machine workers are slow to come up and to answer, and they still put away what an
experiment made when its process has ended.
"""
TAIL = 12
"""Lines shown of a failed experiment's log."""


@dataclass(frozen=True)
class Task:
    """An entry of DVC's queue: short revision, experiment name, and Queued, Running, Success,
    Failed (or Lost, see `watch`).
    """

    revision: str
    name: str
    status: str


def tasks() -> tuple[list[Task], int]:
    """The entries of the queue, and the number of workers.

    DVC gathers the running entries first, then the waiting, then the ended ones: an entry that
    begins to run meanwhile is in none of them, until the next look.
    """
    return parse_status(dvc("queue", "status"))


def settled() -> list[Task]:
    """The entries of the queue by two looks, so that none is missing that began between DVC's own
    (see `tasks`).
    """
    first, second = tasks()[0], tasks()[0]
    return list({task.revision: task for task in (*first, *second)}.values())


def parse_status(text: str) -> tuple[list[Task], int]:
    """Read what `dvc queue status` prints: columns Task, Name, Created, Status, then the line of
    the workers.

    An entry that ended while DVC gathered them is there twice, as running and then by its end,
    which counts.
    """
    row = re.compile(
        r"^([0-9a-f]{7,40})\s+(\S+)\s.*\b(Queued|Running|Success|Failed)\s*$", re.MULTILINE
    )
    workers = re.search(r"Worker status: (\d+) active, (\d+) idle", text)
    entries = {found[0]: Task(*found) for found in row.findall(text)}
    return list(entries.values()), sum(map(int, workers.groups())) if workers else 0


def by_name(entries: Iterable[Task]) -> dict[str, Task]:
    """One task a name: the one that goes on, where older ones of the same name are still listed."""
    order = ("Failed", "Success", "Queued", "Running")
    return {task.name: task for task in sorted(entries, key=lambda task: order.index(task.status))}


def add(
    name: str, overrides: Sequence[str], targets: Sequence[str], copies: Sequence[str] = ()
) -> None:
    """Put an experiment into the queue; copies: files unknown to Git that it needs."""
    options = [word for value in overrides for word in ("--set-param", value)]
    options += [word for path in copies for word in ("--copy-paths", path)]
    dvc("exp", "run", "--queue", "--name", name, *options, *targets)


def parameters_of(task: Task) -> dict[str, Any]:
    """The parameters that a queued or running experiment was given."""
    return read_yaml(
        git("show", f"{task.revision}:./{PARAMETERS}"), f"{task.revision}:{PARAMETERS}"
    )


def log(task: Task) -> list[str]:
    """Lines of a task's output, progress bars as their last state; or DVC's reason for having none."""
    try:
        text = dvc("queue", "logs", task.revision)
    except ExperimentError as error:
        return str(error).splitlines()
    lines = (line.rsplit("\r", 1)[-1].rstrip() for line in text.split("\n"))
    return [line for line in lines if line]


def log_tail(lines: Sequence[str]) -> list[str]:
    """The last lines of a log that say why, each once."""
    return list(dict.fromkeys(lines))[-TAIL:]


def stage_of(lines: Iterable[str]) -> str:
    """The stage that a log has come to; empty before the first."""
    found = [
        match[1]
        for line in lines
        if (match := re.match(r"(?:Running stage|Stage) '([^']+)'", line.strip()))
    ]
    return found[-1] if found else ""


def watch(names: Collection[str], *, jobs: int, work: Path) -> Iterator[tuple[str, Task | None]]:
    """Run the queue until none of these experiments is queued or running; yields (name, last state)
    as each ends.

    None: somebody took it out of the queue, so that two looks do not find it. Lost: its process
    died without a word, as when the machine went down.
    """
    waiting, began, silent, patience = set(names), time.monotonic(), 0, 0
    absent: set[str] = set()
    with tqdm(total=len(waiting), desc="compare", unit="experiment", disable=None) as bar:
        while waiting:
            entries, workers = tasks()
            now = by_name(task for task in entries if task.name in waiting)
            silent += 1
            if workers or _alive(entries):
                silent, patience = 0, SILENT
            queued = any(task.status == "Queued" for task in now.values())
            if queued and silent > patience:
                dvc("queue", "start", "--jobs", str(jobs), work=work)
                silent, patience = 0, SILENT
            unseen, absent = absent, waiting - now.keys()
            for name in sorted(waiting - (absent - unseen)):
                task = now.get(name)
                if task and task.status == "Running" and silent >= SILENT:
                    task = _bury(task)
                if task is None or task.status not in ("Queued", "Running"):
                    waiting.discard(name)
                    bar.update()
                    yield name, task
            running = [
                task for name, task in now.items() if name in waiting and task.status == "Running"
            ]
            if not bar.disable:
                bar.set_postfix_str(
                    ", ".join(f"{task.name} {stage_of(log(task))}".strip() for task in running)
                )
            if waiting:
                time.sleep(min(LONGEST, 2 + (time.monotonic() - began) / 30))


def _alive(entries: Iterable[Task]) -> bool:
    """Whether the process of any running entry is there: DVC's worker may have died and left it, or
    died with it.
    """
    running = tuple(task.revision for task in entries if task.status == "Running")
    if not running:
        return False
    for baseline in json.loads(dvc("exp", "show", "--json", "--all-commits")):
        for entry in baseline.get("experiments") or []:
            local = (entry.get("executor") or {}).get("local") or {}
            if (local.get("task_id") or "").startswith(running) and local.get("pid"):
                with suppress(ProcessLookupError):
                    os.kill(local["pid"], 0)
                    return True
    return False


def _bury(task: Task) -> Task:
    """Let DVC note that the process of a task has died; its state, where it has ended by itself
    meanwhile.
    """
    try:
        dvc("queue", "kill", task.revision)
    except ExperimentError:
        now = by_name(tasks()[0]).get(task.name, task)
        if now.status == "Running":
            raise
        return now
    return replace(task, status="Lost")


def remove(entries: Sequence[Task]) -> None:
    """Take entries out of the queue, and forget those that have ended."""
    if entries:
        dvc("queue", "remove", *(task.revision for task in entries))
