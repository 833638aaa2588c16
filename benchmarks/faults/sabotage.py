"""Run a stage that kills itself with SIGKILL at one exact moment, which no clock would hit.

    python sabotage.py flush 3 stages.cams      before the third file is renamed, with half of it on the disk
    python sabotage.py rename 3 stages.cams     right after the third file was renamed
    python sabotage.py copy 3 stages.cams       while shards are merged, at the third image

With number 0 nothing is killed, and the last line of stderr says how often the moment came.
"""

import os
import runpy
import signal
import sys
from typing import Any

calls = 0


def die() -> None:
    """End as from outside: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def due(number: int) -> bool:
    """Count a moment, and say whether it is the one."""
    global calls
    calls += 1
    return calls == number


def flush(number: int) -> None:
    """Before a file is renamed: its second half is lost."""
    real = os.fsync

    def fsync(fd: int) -> None:
        """os.fsync, or the end."""
        if due(number):
            os.truncate(f"/proc/self/fd/{fd}", os.fstat(fd).st_size // 2)
            die()
        real(fd)

    os.fsync = fsync  # type: ignore[assignment]


def rename(number: int) -> None:
    """Right after a file was renamed."""
    real = os.replace

    def replace(*names: Any) -> None:
        """os.replace, and then perhaps the end."""
        real(*names)
        if due(number):
            die()

    os.replace = replace  # type: ignore[assignment]


def copy(number: int) -> None:
    """While shards are merged into an artifact."""
    from pipeline.core.artifacts import Writer

    real = Writer.copy

    def one(self: Any, *arguments: Any) -> None:
        """Writer.copy, or the end."""
        if due(number):
            die()
        real(self, *arguments)

    Writer.copy = one  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    # as `python -m` has it, and not this script's folder
    sys.path[0] = os.getcwd()
    moment, at, module, *arguments = sys.argv[1:]
    {"flush": flush, "rename": rename, "copy": copy}[moment](int(at))
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        print(f"{moment}: {calls}", file=sys.stderr)
