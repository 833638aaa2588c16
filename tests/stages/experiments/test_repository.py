"""Git and DVC: what experiments would lack, and what the two say."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.experiments import repository
from tests.support.repository import commit, run


def test_files_an_experiment_would_lack_are_refused_or_copied(folder: Path) -> None:
    commit(folder)
    for name in ("tracked", "ignored", "open", "added"):
        (folder / name).mkdir()
        (folder / name / "a.png").touch()
    (folder / ".gitignore").write_text("/ignored/\n/added/\n")
    (folder / "added.dvc").touch()
    run(folder, "git", "add", "tracked", ".gitignore")

    def needs(source: str) -> list[str]:
        return repository.left_behind(
            {"dataset": {"source": source, "val": 0.2}, "runtime": {"work": "open"}}
        )

    assert [
        needs(name) for name in ("tracked", "ignored", "added", "nowhere", str(folder / "open"))
    ] == [
        [],
        ["ignored"],
        [],
        [],
        [],
    ]
    with pytest.raises(UserError, match="dvc add open"):
        needs("open")
    (folder / ".git/info/exclude").write_text("/open/\n")
    with pytest.raises(UserError, match="dvc add open"):
        needs("open")


def test_changes_that_git_does_not_know_are_told_apart(folder: Path) -> None:
    commit(folder)
    (folder / "dvc.yaml").write_text("stages: {}  # changed\n")
    (folder / "new.py").touch()
    assert repository.uncommitted() == (["dvc.yaml"], ["new.py"])


def test_what_dvc_says_is_passed_on(folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"`dvc queue logs nothing` failed: .*not inside of a DVC repository"
    ):
        repository.dvc("queue", "logs", "nothing")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt, which jobs in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_waits_for_dvc_to_bring_changes_back() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), repository._deferred_interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        done = True
    assert done


HELD = "failed to acquire lock"
HALF_READ = "unexpected error - Expecting value: line 1 column 1 (char 0)"


@pytest.mark.parametrize(
    ("command", "ends", "tries"),
    [
        (("queue", "status"), [HALF_READ, HELD], 3),
        (("exp", "show", "--json"), [HALF_READ], 2),
        (("queue", "start"), [HELD], 2),
        (("exp", "run", "--queue"), [HALF_READ], 1),
        (("queue", "status"), ["no such command"], 1),
    ],
)
def test_what_passes_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], ends: list[str], tries: int
) -> None:
    """DVC fails where it looks at a file that a worker of its queue is just writing; what changes
    something is not given twice.
    """
    given: list[tuple[str, ...]] = []

    def output(*words: str, environment: object) -> str:
        given.append(words[3:])
        if len(given) <= len(ends):
            raise repository.ExperimentError(ends[len(given) - 1])
        return "done"

    monkeypatch.setattr(repository, "_output", output)
    monkeypatch.setattr(repository.time, "sleep", lambda seconds: None)
    if tries > len(ends):
        assert repository.dvc(*command) == "done"
    else:
        with pytest.raises(UserError, match=re.escape(ends[-1])):
            repository.dvc(*command)
    assert given == [command] * tries
