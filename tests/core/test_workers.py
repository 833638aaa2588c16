"""Worker processes: order, progress, spilled results, and workers that are killed."""

import os
import re
import signal
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.workers import SPILL_BYTES, Spilled, reraise_worker_death, spill, spread, unspill
from pipeline.errors import UserError


def test_a_small_result_is_sent_as_it_is(tmp_path: Path) -> None:
    assert spill((1, "two"), str(tmp_path)) == (1, "two")
    assert unspill((1, "two")) == (1, "two")
    assert not list(tmp_path.iterdir())


def test_a_large_result_is_sent_as_a_file_which_is_removed(tmp_path: Path) -> None:
    values = np.arange(SPILL_BYTES)
    spilled = spill({"values": values}, str(tmp_path))
    assert isinstance(spilled, Spilled)
    assert [str(path) for path in tmp_path.iterdir()] == [spilled.path]
    assert np.array_equal(unspill(spilled)["values"], values)
    assert not list(tmp_path.iterdir())


def test_a_killed_worker_is_reported_with_what_to_do() -> None:
    message = (
        "cams: a worker process was killed (out of memory?); resume, if need be with fewer hands"
    )
    with (
        pytest.raises(UserError, match=re.escape(message)),
        reraise_worker_death(UserError, "cams: ", "resume", "hands"),
    ):
        raise BrokenProcessPool
    with pytest.raises(OSError, match="other"), reraise_worker_death(UserError):
        raise OSError("other")


def square(number: int) -> int:
    return number * number


def fail_at_three(number: int) -> int:
    if number == 3:
        raise OSError("unreadable")
    return number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_the_death_of_a_worker_names_the_parameter() -> None:
    assert list(spread(die, [], workers=2)) == [], "nothing to do needs no worker"
    with pytest.raises(UserError, match=r"killed.*runtime\.workers"):
        list(spread(die, [1, 2, 3], workers=2))


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_progress_counts_all(workers: int) -> None:
    seen: list[tuple[int, int]] = []
    results = spread(
        square, list(range(9)), workers, lambda done, total: seen.append((done, total))
    )
    assert list(results) == [n * n for n in range(9)]
    assert seen == [(n + 1, 9) for n in range(9)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_is_raised_in_the_place_of_its_item(workers: int) -> None:
    results = spread(fail_at_three, range(9), workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="unreadable"):
        next(results)
