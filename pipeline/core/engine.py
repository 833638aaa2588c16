"""The per-image engine: load in processes, compute in batches on the device, finish in processes,
write shards, merge.

Shards of a few hundred images, in sorted order, are dealt to the ranks and renamed when whole; a
run that was killed goes on with those it finds. The merged artifact has the same bytes for any
number of ranks, workers and interruptions.

Worker processes: how large results come back from them, and what is said when one is killed.

All workers of a pool write into one pipe. One that is killed in the middle of a large result leaves
half of it there, and whoever reads waits for the rest for ever, as the other workers keep the pipe
open. Large results therefore go by file; what is small is written at once, or not at all.

Work on many files at once, in processes.
"""

import logging
import multiprocessing
import multiprocessing.process
import os
import pickle
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from pipeline.core import resume
from pipeline.core.artifacts import ArtifactError, Reader, Record, Writer, merge, validate_record
from pipeline.core.device import Runtime
from pipeline.errors import UserError

LARGE = 2048
"""Bytes of a result from which on it goes by file; half of what POSIX writes to a pipe in one
piece.
"""


class Parcel(NamedTuple):
    """The file that holds a result."""

    path: str


def post(folder: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """Do `work` in a worker process and return its result, or the parcel in `folder` that holds it;
    raises what work raises.
    """
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
    """Raise a `kind` of UserError where a worker process is killed: who needed it, when, what to
    do, and what there may be less of.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise kind(
            f"{before}a worker process was killed (out of memory?){when}; {after}, if need be with fewer {option}"
        ) from error


log = logging.getLogger(__name__)
_Result = tuple[str, Future[Any]]
"""Name of an image and what it will come to."""


class ImageError(UserError):
    """Some images failed; the message names each with its reason. Finished shards are kept."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is done to every image.

    load(name) and finish(name, computed) run in worker processes and must be picklable;
    compute(names, loaded) runs on the device in the rank's own process, on images of equal `key`;
    at_once: at least how many of them together, if there are so many. Without compute, a worker
    does finish(name, load(name)) in one go; without finish, what was computed is the result: for
    `run` the record of the image.
    """

    load: Callable[[str], Any]
    finish: Callable[[str, Any], Any] | None = None
    compute: Callable[[list[str], list[Any]], Sequence[Any]] | None = None
    key: Callable[[str], Hashable] = lambda name: None
    at_once: int = 1


@dataclass(slots=True)
class _Shard:
    """A shard under way."""

    number: int
    names: list[str]
    records: dict[str, Record] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether every image is done or has failed."""
        return len(self.records) + len(self.failures) == len(self.names)


def run(
    task: Task,
    names: Sequence[str],
    out: Path,
    *,
    stage: str,
    format_: str,
    classes: Sequence[str],
    fingerprint: str,
    runtime: Runtime,
) -> None:
    """Apply `task` to all images and write the artifact `out` of layout `format_`.

    Raises ImageError naming every image that failed (unless runtime.skip_bad), after all others are
    done and kept.
    """
    folder = resume.folder(runtime.work, stage, f"{fingerprint}-{runtime.shard}")
    ordered = sorted(names)
    shards = [
        ordered[start : start + runtime.shard] for start in range(0, len(ordered), runtime.shard)
    ]
    mine = [_Shard(n, s) for n, s in enumerate(shards) if n % runtime.world_size == runtime.rank]
    todo = [s for s in mine if not _is_whole(_path(folder, s.number), format_, runtime.skip_bad)]
    if done := len(mine) - len(todo):
        log.info("%s: goes on, %d shards were finished before", stage, done)
    failures = _work_off(task, todo, folder, format_, classes, runtime, stage) if todo else {}
    if failures:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in sorted(failures.items()))
        message = f"{stage}: {len(failures)} of {len(names)} images failed:\n{reasons}"
        if not runtime.skip_bad:
            raise ImageError(
                f"{message}\nAll others are kept in {folder}; mend these, or set runtime.skip_bad to leave them out."
            )
        log.warning(message)
    if runtime.is_main_process:
        _merge(folder, len(shards), out, format_, classes)
        resume.cleanup(runtime.work, stage)


def _merge(folder: Path, count: int, out: Path, format_: str, classes: Sequence[str]) -> None:
    """Wait for the shards of all ranks, then join them."""
    paths = [_path(folder, number) for number in range(count)]
    missing = paths
    while missing := [path for path in missing if not _readable(path, format_)]:
        log.debug("waiting for %d shards of other ranks", len(missing))
        time.sleep(0.2)
    merge(
        paths, out, format_, classes, [name for path in paths for name in _skipped(path, format_)]
    )


def _work_off(
    task: Task,
    shards: list[_Shard],
    folder: Path,
    format_: str,
    classes: Sequence[str],
    runtime: Runtime,
    stage: str,
) -> dict[str, str]:
    """Compute the shards and write each when whole; returns the images that failed with their
    reasons.
    """
    failures: dict[str, str] = {}
    shard_of = {name: shard for shard in shards for name in shard.names}
    with (
        tqdm(
            total=len(shard_of),
            desc=stage,
            unit="image",
            disable=not runtime.is_main_process,
            mininterval=1,
        ) as bar,
        killed_workers_told(ImageError, f"{stage}: ", "finished shards are kept, run again"),
        closing(
            stream(task, [shard.names for shard in shards], runtime.workers, runtime.batch)
        ) as results,
    ):
        for name, result in results:
            shard = shard_of[name]
            _take_in(shard, name, result, format_)
            bar.update()
            if shard.whole:
                _write(shard, folder, format_, classes, runtime.skip_bad)
                failures |= shard.failures
    return failures


def _take_in(shard: _Shard, name: str, result: Any, format_: str) -> None:
    """Put the record of an image, or the reason why it has none, into its shard."""
    try:
        if isinstance(result, BaseException):
            raise result
        shard.records[name] = validate_record(format_, result)
    except ArtifactError as error:
        shard.failures[name] = str(error)
    except Exception as error:
        shard.failures[name] = f"{type(error).__name__}: {error}"


def _write(
    shard: _Shard, folder: Path, format_: str, classes: Sequence[str], skip_bad: bool
) -> None:
    """Write a whole shard; one with failures is written only where these may be skipped, so that a
    later run mends it.
    """
    if not shard.failures or skip_bad:
        path = _path(folder, shard.number)
        with Writer(path, format_, classes, skipped=sorted(shard.failures)) as writer:
            for name in sorted(shard.records):
                writer.write(name, shard.records[name])
    shard.records.clear()


def results(
    task: Task, names: Sequence[str], *, stage: str, runtime: Runtime
) -> Iterator[tuple[str, Any]]:
    """Apply `task` to images and yield each with its result, in an order that follows from their
    names; nothing is kept.

    Raises ImageError for the first that fails, and when a worker is killed.
    """
    with (
        killed_workers_told(ImageError, f"{stage}: "),
        closing(stream(task, [names], runtime.workers, runtime.batch)) as found,
    ):
        for name, result in found:
            if isinstance(result, BaseException):
                raise ImageError(f"{stage}: {name}: {result}") from result
            yield name, result


def stream(
    task: Task, groups: Iterable[Sequence[str]], workers: int, batch: int
) -> Generator[tuple[str, Any]]:
    """Apply `task` to images in `workers` processes, 1 for this one: yields (name, result, or the
    exception that it ended with).

    groups: names, each once; those of a group and of equal key go through the device together, at
    most `batch` of them, or task.at_once if that is more. A bounded number of images is on the way.
    Raises BrokenProcessPool when a worker is killed; close it to end the workers early.
    """
    ahead = max(2 * workers, 2 * batch)
    with _pool(workers, task) as pool:
        results = (
            _in_one_go(groups, pool)
            if task.compute is None
            else _staged(task, groups, batch, workers, pool)
        )
        try:
            yield from _taken(results, ahead)
        except EOFError as error:
            # so the fork server tells of a worker that was killed before it could say its number
            raise BrokenProcessPool(str(error)) from error


def _in_one_go(groups: Iterable[Sequence[str]], pool: Executor) -> Iterator[_Result]:
    """The images of a task without a device part, each a job of its own."""
    return ((name, pool.submit(_whole, name)) for group in groups for name in group)


def _staged(
    task: Task, groups: Iterable[Sequence[str]], batch: int, workers: int, pool: Executor
) -> Iterator[_Result]:
    """Images loaded ahead, computed in batches and handed back to the workers."""
    batch = max(batch, task.at_once)
    ahead = max(2 * workers, 2 * batch)
    loading: deque[tuple[Sequence[str], list[Future[Any]]]] = deque()
    for names in (names for group in groups for names in _batches(group, task.key, batch)):
        loading.append((names, [pool.submit(_load, name) for name in names]))
        if sum(len(waiting) for waiting, _ in loading) >= ahead:
            yield from _compute(task, *loading.popleft(), pool)
    while loading:
        yield from _compute(task, *loading.popleft(), pool)


def _taken(results: Iterator[_Result], ahead: int) -> Iterator[tuple[str, Any]]:
    """Results in order, of which `ahead` may be on the way."""
    waiting: deque[_Result] = deque()
    for result in results:
        waiting.append(result)
        if len(waiting) > ahead:
            yield _take(*waiting.popleft())
    while waiting:
        yield _take(*waiting.popleft())


def _take(name: str, future: Future[Any]) -> tuple[str, Any]:
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise error
    return name, error if error is not None else receive(future.result())


def _compute(
    task: Task, batch: Sequence[str], loads: list[Future[Any]], pool: Executor
) -> Iterator[_Result]:
    """Run the device part on what was loaded and hand its results to the workers."""
    ready = []
    for name, load in zip(batch, loads, strict=True):
        if load.exception() is None:
            ready.append((name, receive(load.result())))
        else:
            yield name, load
    names, items = [name for name, _ in ready], [item for _, item in ready]
    for name, result in zip(names, _guarded(task, names, items), strict=True):
        future: Future[Any] = Future()
        if isinstance(result, BaseException):
            future.set_exception(result)
        elif task.finish is None:
            future.set_result(result)
        else:
            future = pool.submit(_finish, name, result)
        yield name, future


def _guarded(task: Task, names: list[str], items: list[Any]) -> Sequence[Any]:
    """compute of a batch; where that fails, its images one by one, so that only the bad ones are
    lost.
    """
    assert task.compute is not None
    if not items:
        return []
    try:
        return task.compute(names, items)
    except Exception as error:
        if len(items) == 1:
            return [error]
        log.warning("%d images failed together, tried one by one: %s", len(items), error)
    # not while the error is handled, which would keep what the failed attempt had made
    return [_guarded(task, [name], [item])[0] for name, item in zip(names, items, strict=True)]


def _batches(names: Sequence[str], key: Callable[[str], Hashable], size: int) -> list[list[str]]:
    """Group names of equal key, in order of first appearance, into batches of at most `size`."""
    groups: dict[Hashable, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return [
        group[start : start + size]
        for group in groups.values()
        for start in range(0, len(group), size)
    ]


def _path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06d}.h5"


def _is_whole(path: Path, format_: str, skip_bad: bool) -> bool:
    """Whether a shard can be taken as it is; a damaged one, or one with gaps that may not be, is
    removed and made again.
    """
    if _readable(path, format_) and (skip_bad or not _skipped(path, format_)):
        return True
    path.unlink(missing_ok=True)
    return False


def _readable(path: Path, format_: str) -> bool:
    try:
        Reader(path, format_).close()
    except ArtifactError:
        return False
    return True


def _skipped(path: Path, format_: str) -> tuple[str, ...]:
    reader = Reader(path, format_)
    reader.close()
    return reader.skipped


class _Inline(Executor):
    """Runs each job at once in this process: one worker needs no second process."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The job as a future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class _Posting(Executor):
    """Lets the jobs of a pool of processes hand back large results by file; `receive` them."""

    def __init__(self, pool: Executor, folder: str) -> None:
        self.pool, self.folder = pool, folder

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The job as one of the pool."""
        return self.pool.submit(post, self.folder, partial(function, *args, **kwargs))


_at_work: dict[str, Any] = {}
"""The task's functions in this worker process, sent once when it starts and not with every image.
"""


def _load(name: str) -> Any:
    return _at_work["load"](name)


def _finish(name: str, computed: Any) -> Any:
    return _at_work["finish"](name, computed)


def _whole(name: str) -> Any:
    return _finish(name, _load(name)) if _at_work["finish"] is not None else _load(name)


@contextmanager
def _pool(workers: int, task: Task) -> Iterator[Executor]:
    if workers == 1:
        _at_work.update(load=task.load, finish=task.finish)
        try:
            yield _Inline()
        finally:
            _at_work.clear()
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "cv2", "pipeline.core.engine"])
    with tempfile.TemporaryDirectory(prefix="weakmask-") as parcels:
        pool = ProcessPoolExecutor(
            workers,
            mp_context=context,
            initializer=_start_worker,
            initargs=(task.load, task.finish, parcels),
        )
        try:
            yield _Posting(pool, parcels)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(
    load: Callable[..., Any], finish: Callable[..., Any] | None, parcels: str
) -> None:
    """One thread per worker, and an end with the parent, also when that is killed."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _at_work.update(load=load, finish=finish)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent, parcels), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess, parcels: str) -> None:
    parent.join()
    shutil.rmtree(parcels, ignore_errors=True)
    os._exit(1)


Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]


def spread(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int = 1,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Apply `work` (picklable) to all items in `workers` processes, 1 for this one; yields results
    in the order of the items.

    `progress(done, total)` is called in this process after every item. Raises UserError when a
    worker is killed.
    """
    if workers <= 1 or len(items) < 2:
        yield from _counted(map(work, items), len(items), progress)
        return
    # Forked copies of a process with threads (OpenMP, CUDA) can hang; a fork server is clean and
    # starts quickly.
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
