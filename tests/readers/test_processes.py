"""Work in processes: order, progress, and the death of a worker."""

import os
import signal

import pytest

from pipeline.core.engine import spread
from pipeline.errors import UserError


def square(number: int) -> int:
    return number * number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_progress_counts_all(workers: int) -> None:
    seen: list[tuple[int, int]] = []
    results = spread(
        square, list(range(9)), workers, lambda done, total: seen.append((done, total))
    )
    assert list(results) == [n * n for n in range(9)]
    assert seen == [(n + 1, 9) for n in range(9)]


def test_a_killed_worker_is_said_in_words() -> None:
    with pytest.raises(UserError, match=r"killed.*runtime\.workers"):
        list(spread(die, [1, 2, 3], workers=2))
