"""Run a stage that kills itself with SIGKILL at an exact moment, which no timer would hit.

python crash.py write 3 stages.cams      in the third write of a file, half of which is on disk
python crash.py rename 3 stages.cams     right after the third file was renamed
python crash.py merge 3 stages.cams      at the third image of a merge of shards
"""

import os
import runpy
import signal
import sys
from collections.abc import Callable
from typing import Any


def lose_half(fd: int) -> None:
    """Cut the file that should be flushed to disk."""
    os.truncate(f"/proc/self/fd/{fd}", os.fstat(fd).st_size // 2)


def dies_in_call(number: int, real: Callable[..., object], last: Callable[..., object]) -> Any:
    """Return a function that calls `real`, and in the call of this number `last`, then dies."""

    def counted(*arguments: Any) -> None:
        nonlocal number
        number -= 1
        (real if number else last)(*arguments)
        if not number:
            os.kill(os.getpid(), signal.SIGKILL)

    return counted


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # as `python -m` has it
    from pipeline.core.artifacts import Writer

    moment, count, module = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    places = {"write": (os, "fsync"), "rename": (os, "replace"), "merge": (Writer, "copy")}
    owner, name = places[moment]
    work = getattr(owner, name)
    setattr(owner, name, dies_in_call(count, work, lose_half if moment == "write" else work))
    sys.argv = sys.argv[3:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
