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

calls = 0


def is_due() -> bool:
    """Count a moment, and return whether it is the one asked for."""
    global calls
    calls += 1
    return calls == NUMBER


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fsync(fd: int) -> None:
    if is_due():
        os.truncate(f"/proc/self/fd/{fd}", os.fstat(fd).st_size // 2)
        crash()


def after(real: Callable[..., object], *arguments: Any) -> None:
    real(*arguments)
    if is_due():
        crash()


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # as `python -m` has it
    MOMENT, NUMBER, MODULE = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    sys.argv = sys.argv[3:]
    if MOMENT == "write":
        os.fsync = fsync  # type: ignore[assignment]
    elif MOMENT == "rename":
        rename = os.replace
        os.replace = lambda *names: after(rename, *names)  # type: ignore[assignment]
    else:
        from pipeline.core.artifacts import Writer

        copy = Writer.copy
        Writer.copy = lambda *given: after(copy, *given)  # type: ignore[assignment, method-assign]
    runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
