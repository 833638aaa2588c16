"""Large results of worker processes go by file, nothing of them is left, and of a killed worker is
told.
"""

import re
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.engine import LARGE, Parcel, killed_workers_told, post, receive
from pipeline.errors import UserError


def test_a_small_result_comes_as_it_is(tmp_path: Path) -> None:
    assert post(str(tmp_path), lambda: (1, "two")) == (1, "two")
    assert receive((1, "two")) == (1, "two")
    assert not list(tmp_path.iterdir())


def test_a_large_result_comes_by_file_which_is_removed(tmp_path: Path) -> None:
    values = np.arange(LARGE)
    parcel = post(str(tmp_path), lambda factor: {"values": values * factor}, 3)
    assert isinstance(parcel, Parcel)
    assert [str(path) for path in tmp_path.iterdir()] == [parcel.path]
    assert np.array_equal(receive(parcel)["values"], 3 * values)
    assert not list(tmp_path.iterdir())


def test_an_error_stays_an_error(tmp_path: Path) -> None:
    def failing() -> None:
        raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        post(str(tmp_path), failing)


def test_a_killed_worker_is_told_with_what_to_do() -> None:
    told = "cams: a worker process was killed (out of memory?) at work; go on, if need be with fewer hands"
    with (
        pytest.raises(UserError, match=re.escape(told)),
        killed_workers_told(UserError, "cams: ", "go on", "hands", " at work"),
    ):
        raise BrokenProcessPool
    with pytest.raises(OSError, match="other"), killed_workers_told(UserError):
        raise OSError("other")
