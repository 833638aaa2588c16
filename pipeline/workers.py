"""Worker processes: how large results come back from them, and what is said when one is killed.

All workers of a pool write into one pipe. One that is killed in the middle of a large result leaves half of it there, and whoever reads
waits for the rest for ever, as the other workers keep the pipe open. Large results therefore go by file; what is small is written at
once, or not at all.
"""

import pickle
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import UserError

LARGE = 2048
"""Bytes of a result from which on it goes by file; half of what POSIX writes to a pipe in one piece."""


class Parcel(NamedTuple):
    """The file that holds a result."""

    path: str


def post(folder: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """Do `work` in a worker process and return its result, or the parcel in `folder` that holds it; raises what work raises."""
    result = work(*arguments)
    content = pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL)
    if len(content) < LARGE:
        return result
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(content)
    return Parcel(file.name)


def receive(posted: Any) -> Any:
    """Return the result that was posted; its file is removed."""
    if not isinstance(posted, Parcel):
        return posted
    path = Path(posted.path)
    result = pickle.loads(path.read_bytes())
    path.unlink()
    return result


@contextmanager
def killed_workers_told(
    kind: type[UserError],
    before: str = "",
    after: str = "run again",
    option: str = "runtime.workers",
    when: str = "",
) -> Iterator[None]:
    """Raise a `kind` of UserError where a worker process is killed: who needed it, when, what to do, and what there may be less of."""
    try:
        yield
    except BrokenProcessPool as error:
        raise kind(
            f"{before}a worker process was killed (out of memory?){when}; {after}, if need be with fewer {option}"
        ) from error
