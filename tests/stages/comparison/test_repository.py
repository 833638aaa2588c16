"""Git and DVC: what experiments would lack, and what the two say."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.repository import commit, run
from pipeline.errors import UserError
from stages.comparison import repository


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

    assert [needs(name) for name in ("tracked", "ignored", "added", "nowhere", str(folder / "open"))] == [
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
    with pytest.raises(UserError, match=r"`dvc queue logs nothing` failed: .*not inside of a DVC repository"):
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
