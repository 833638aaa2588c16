"""Work on many files at once, in processes."""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

from pipeline.errors import UserError
from pipeline.workers import killed_workers_told, post, receive

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]


def spread(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int = 1, progress: Progress | None = None
) -> Iterator[Result]:
    """Apply `work` (picklable) to all items in `workers` processes, 1 for this one; yields results in the order
    of the items.

    `progress(done, total)` is called in this process after every item. Raises UserError when a worker is killed.
    """
    if workers <= 1 or len(items) < 2:
        yield from _counted(map(work, items), len(items), progress)
        return
    # Forked copies of a process with threads (OpenMP, CUDA) can hang; a fork server is clean and starts
    # quickly.
    context = multiprocessing.get_context("forkserver")
    chunk = max(1, min(32, len(items) // (4 * workers)))
    with (
        killed_workers_told(UserError, when=" while reading the source"),
        tempfile.TemporaryDirectory(prefix="weakmask-") as folder,
        ProcessPoolExecutor(min(workers, len(items)), mp_context=context) as pool,
    ):
        posted = pool.map(partial(post, folder, work), items, chunksize=chunk)
        yield from _counted(map(receive, posted), len(items), progress)


def _counted(results: Iterable[Result], total: int, progress: Progress | None) -> Iterator[Result]:
    for done, result in enumerate(results, start=1):
        if progress is not None:
            progress(done, total)
        yield result
