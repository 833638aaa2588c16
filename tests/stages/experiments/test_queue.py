"""DVC's queue: its words, and entries that change while it is read."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from stages.experiments import queue
from stages.experiments.queue import Task
from stages.experiments.repository import ExperimentError

STATUS = """\
Task     Name       Created    Status
22e34c7  cam-seed5  10:34 AM   Running
bbf9f24  cam-seed6  Nov 20, 2026  Queued
c1fd297             10:06 AM   Failed
00dde37  cam-seed5  10:12 AM   Failed

Worker status: 1 active, 2 idle
"""


def test_the_queue_is_read() -> None:
    entries, workers = queue.parse_status(STATUS)
    assert workers == 3
    assert Task("22e34c7", "cam-seed5", "Running") in entries
    assert Task("bbf9f24", "cam-seed6", "Queued") in entries
    assert queue.by_name(entries)["cam-seed5"].status == "Running"
    assert queue.parse_status(
        "No experiment tasks in the queue.\n\nWorker status: 0 active, 0 idle\n"
    ) == (
        [],
        0,
    )


def test_an_entry_that_ends_while_dvc_lists_them_is_read_once_by_its_end() -> None:
    twice = STATUS.replace("Worker", "22e34c7  cam-seed5  10:34 AM   Success\n\nWorker")
    entries, _ = queue.parse_status(twice)
    assert [task.status for task in entries if task.revision == "22e34c7"] == ["Success"]


def looks(monkeypatch: pytest.MonkeyPatch, *entries: Sequence[Task]) -> None:
    """Let the queue be read as this, look by look, with a worker that is there."""
    each = iter(entries)
    monkeypatch.setattr(queue, "tasks", lambda: (list(next(each)), 1))
    monkeypatch.setattr(queue.time, "sleep", lambda _: None)


def test_an_entry_unseen_while_it_begins_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task("22e34c7", "cam-seed5", "Success")
    looks(monkeypatch, [replace(task, status="Queued")], [], [task])
    assert list(queue.watch(["cam-seed5"], jobs=1, work=Path("work"))) == [("cam-seed5", task)]
    looks(monkeypatch, [replace(task, status="Queued")], [], [])
    assert list(queue.watch(["cam-seed5"], jobs=1, work=Path("work"))) == [("cam-seed5", None)]


@pytest.mark.parametrize(("alive", "started"), [(True, 0), (False, 1)])
def test_no_worker_is_started_beside_one_that_is_too_busy_to_answer(
    alive: bool, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its experiment is running, and would be joined by another one, with `jobs` 1."""
    running, waiting = (
        Task("22e34c7", "cam-seed5", "Running"),
        Task("bbf9f24", "cam-seed6", "Queued"),
    )
    ended = replace(waiting, status="Success")
    each = iter([([running, waiting], 0)] * queue.SILENT + [([ended], 1)])
    commands = list[tuple[str, ...]]()
    monkeypatch.setattr(queue, "tasks", lambda: next(each))
    monkeypatch.setattr(queue, "_alive", lambda entries: alive and running in entries)
    monkeypatch.setattr(queue, "dvc", lambda *words, **_: commands.append(words))
    monkeypatch.setattr(queue.time, "sleep", lambda _: None)
    assert list(queue.watch(["cam-seed6"], jobs=1, work=Path("work"))) == [("cam-seed6", ended)]
    assert commands == [("queue", "start", "--jobs", "1")] * started


def test_a_worker_has_time_to_come_up_before_another_one_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = Task("bbf9f24", "cam-seed6", "Queued")
    each = iter(
        [([waiting], 0)] * (2 * queue.SILENT + 2) + [([replace(waiting, status="Success")], 1)]
    )
    commands = list[tuple[str, ...]]()
    monkeypatch.setattr(queue, "tasks", lambda: next(each))
    monkeypatch.setattr(queue, "dvc", lambda *words, **_: commands.append(words))
    monkeypatch.setattr(queue.time, "sleep", lambda _: None)
    assert len(list(queue.watch(["cam-seed6"], jobs=1, work=Path("work")))) == 1
    assert len(commands) == 2


@pytest.mark.parametrize("queued", [True, False])
def test_a_worker_that_puts_away_what_a_process_left_has_time(
    queued: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not answer meanwhile, and the entry is running still: nothing is killed, no other
    worker is started.
    """
    running, waiting = (
        Task("22e34c7", "cam-seed5", "Running"),
        Task("bbf9f24", "cam-seed6", "Queued"),
    )
    beside = [waiting] * queued
    ended = [replace(task, status="Success") for task in (running, *beside)]
    looked = 2 * queue.SILENT
    each = iter([([running, *beside], 0)] * looked + [(ended, 0)])
    alive = iter([True] * (looked - queue.SILENT + 1) + [False] * queue.SILENT)
    commands = list[tuple[str, ...]]()
    monkeypatch.setattr(queue, "tasks", lambda: next(each))
    monkeypatch.setattr(queue, "_alive", lambda entries: next(alive))
    monkeypatch.setattr(queue, "dvc", lambda *words, **_: commands.append(words))
    monkeypatch.setattr(queue.time, "sleep", lambda _: None)
    found = dict(queue.watch([task.name for task in ended], jobs=1, work=Path("work")))
    assert list(found.values()) == ended
    assert not commands


@pytest.mark.parametrize("status", ["Success", "Running"])
def test_a_process_that_ends_as_it_is_given_up_has_ended_by_itself(
    status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task("22e34c7", "cam-seed5", "Running")
    each = iter([([task], 0)] * queue.SILENT + [([replace(task, status=status)], 0)])

    def refuse(*_: str) -> str:
        """What DVC says to `queue kill` of an entry that is no longer running."""
        raise ExperimentError("'22e34c7' is not a valid running experiment name")

    monkeypatch.setattr(queue, "tasks", lambda: next(each))
    monkeypatch.setattr(queue, "_alive", lambda entries: False)
    monkeypatch.setattr(queue, "dvc", refuse)
    monkeypatch.setattr(queue.time, "sleep", lambda _: None)
    watched = queue.watch(["cam-seed5"], jobs=1, work=Path("work"))
    if status == "Running":
        with pytest.raises(ExperimentError, match="22e34c7"):
            list(watched)
    else:
        assert list(watched) == [("cam-seed5", replace(task, status="Success"))]


def test_two_looks_find_an_entry_that_begins_between(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, waiting = Task("22e34c7", "cam-seed5", "Running"), Task("bbf9f24", "cam-seed6", "Queued")
    looks(monkeypatch, [waiting], [begun, waiting])
    assert queue.settled() == [waiting, begun]
    looks(monkeypatch, [begun, waiting], [waiting])
    assert queue.settled() == [begun, waiting]


def test_a_log_tells_its_stage_and_why_it_ended() -> None:
    lines = [
        "Running stage 'dataset':",
        "> python",
        "Stage 'cams' is cached - skipping run",
        "boom",
        "boom",
    ]
    assert queue.stage_of(lines) == "cams"
    assert queue.stage_of([]) == ""
    assert queue.log_tail(lines)[-1] == "boom"
    assert queue.log_tail(lines).count("boom") == 1
