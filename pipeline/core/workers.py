"""The pool of worker processes that everything parallel on a CPU runs in.

All workers write their results into one pipe. A worker that is killed within a large write leaves
half of a result there, and the reader would wait for the rest forever, as the other workers keep
the pipe open. Large results are therefore spilled to files; small ones are written in one piece.
"""

import multiprocessing
import multiprocessing.process
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pipeline.errors import UserError

SPILL_BYTES = 2048
"""Pickled results of this size or more are spilled; POSIX writes twice as much to a pipe in one
piece (PIPE_BUF).
"""

Item = TypeVar("Item")
Result = TypeVar("Result")
Functions = Mapping[str, Callable[..., Any]]
"""What workers do, by name; picklable."""
Submit = Callable[..., Future[Any]]
"""submit(name, *arguments) has a worker call a function."""
Progress = Callable[[int, int], None]
"""progress(done, total) is called after every item."""


def spread(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int = 1,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Yield work(item) for all items, in their order, computed in `workers` processes (1: this
    one).

    Raises:
        UserError: a worker was killed.
        Exception: whatever `work` raises.
    """
    workers = max(1, min(workers, len(items)))
    with (
        reraise_worker_death(UserError, "reading the source: "),
        worker_pool({"work": work}, workers) as submit,
    ):
        jobs = ((item, submit("work", item)) for item in items)
        for done, (_, result) in enumerate(in_order(jobs, 2 * workers), start=1):
            if isinstance(result, BaseException):
                raise result
            if progress is not None:
                progress(done, len(items))
            yield result


def in_order(jobs: Iterable[tuple[Item, Future[Any]]], ahead: int) -> Generator[tuple[Item, Any]]:
    """Yield each item with its result, or with the exception that it ended with.

    At most `ahead` jobs are pending; those after them are drawn from `jobs` when these are done.

    Raises:
        BrokenProcessPool: a worker was killed.
    """
    pending: deque[tuple[Item, Future[Any]]] = deque()
    try:
        for job in jobs:
            pending.append(job)
            if len(pending) > ahead:
                yield _outcome(*pending.popleft())
        while pending:
            yield _outcome(*pending.popleft())
    except EOFError as error:
        # raised by the fork server if a worker is killed before it has reported its process id
        raise BrokenProcessPool(str(error)) from error


def _outcome(item: Item, future: Future[Any]) -> tuple[Item, Any]:
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise error
    return item, unspill(future.result()) if error is None else error


@contextmanager
def worker_pool(functions: Functions, workers: int) -> Iterator[Submit]:
    """Yield a function that submits jobs to worker processes; `unspill` their results.

    One worker needs no second process: its jobs run at once, in this one.
    """
    if workers == 1:
        yield partial(_run_here, functions)
        return
    # a fork of a process with threads (OpenMP, CUDA) can hang; the fork server has none
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cv2", "pipeline.core.engine", *_modules_of_main()])
    with tempfile.TemporaryDirectory(prefix="weakmask-") as folder:
        pool = ProcessPoolExecutor(workers, context, _start_worker, (functions, folder))
        try:
            yield lambda *job: pool.submit(_run_in_worker, *job)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _modules_of_main() -> list[str]:
    """Return the modules of this project from which the program that was started takes names.

    Every worker imports that program again; from the fork server they inherit what it loads.
    """
    used = {
        getattr(value, "__module__", None) or "" for value in vars(sys.modules["__main__"]).values()
    }
    return sorted(name for name in used if name.startswith("pipeline."))


def _run_here(functions: Functions, name: str, *arguments: Any) -> Future[Any]:
    try:
        return completed(functions[name](*arguments))
    except Exception as error:
        return completed(error)


def completed(result: Any) -> Future[Any]:
    """Return a future that is done: with a result, or with an exception."""
    future: Future[Any] = Future()
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


_worker: dict[str, Any] = {}
"""The functions and the spill folder of this worker process, sent once and not with every job."""


def _start_worker(functions: Functions, folder: str) -> None:
    """Use one thread, leave Ctrl-C to the parent process, and end with it, even if it is killed."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    cv2.setNumThreads(1)
    _worker.update(functions=functions, folder=folder)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent, folder), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess, folder: str) -> None:
    parent.join()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _run_in_worker(name: str, *arguments: Any) -> Any:
    return spill(_worker["functions"][name](*arguments), _worker["folder"])


class Spilled(NamedTuple):
    """The file that holds a large result."""

    path: str


def spill(result: Any, folder: str) -> Any:
    """Return a small result as it is, a large one as a file in `folder`."""
    content = pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL)
    if len(content) < SPILL_BYTES:
        return result
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(content)
    return Spilled(file.name)


def unspill(result: Any) -> Any:
    """Return the result that was given to `spill`, and remove its file."""
    if not isinstance(result, Spilled):
        return result
    path = Path(result.path)
    content = path.read_bytes()
    path.unlink()
    return pickle.loads(content)


@contextmanager
def reraise_worker_death(
    kind: type[UserError],
    where: str = "",
    after: str = "run again",
    option: str = "runtime.workers",
) -> Iterator[None]:
    """Turn BrokenProcessPool into a `kind` of UserError that says what to do.

    Args:
        kind: class of the error.
        where: beginning of the message, such as "cams: ".
        after: what is left, and how to resume.
        option: what sets the number of workers.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise kind(
            f"{where}a worker process was killed (out of memory?); {after}, if need be with fewer "
            f"{option}"
        ) from error
