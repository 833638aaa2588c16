"""The per-image engine, on which every stage runs that writes an item per image.

    load (workers) > compute (device, in batches) > finish (workers) > shards > merged artifact

Shards of `runtime.shard` images, in sorted order, are dealt to the ranks in turn and renamed when
complete; an interrupted run resumes with those it finds. The merged artifact has the same bytes for
any number of ranks, workers and interruptions, and memory holds a few batches and one shard.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.core import resume
from pipeline.core.artifacts import ArtifactError, Reader, Record, Writer, merge, validate_record
from pipeline.core.device import Runtime
from pipeline.core.workers import (
    Submit,
    completed,
    in_order,
    reraise_worker_death,
    unspill,
    worker_pool,
)
from pipeline.errors import UserError, count

log = logging.getLogger(__name__)
Job = tuple[str, Future[Any]]
"""An image and its result to be."""


class ImageError(UserError):
    """Some images failed; the message names each with its reason. Finished shards are kept."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is done to every image.

    Without `compute`, a worker calls finish(name, load(name)) in one go; without `finish`, the
    computed value is the result: for `run` the record of the image.

    Attributes:
        load: load(name), called in worker processes; must be picklable.
        finish: finish(name, computed), called in worker processes; must be picklable.
        compute: compute(names, loaded) returns a value per image; called on the device, in the
            rank's own process, on images of equal `key`.
        key: key(name), equal for images that may share a batch.
        at_once: the smallest batch to compute, where there are as many images.
    """

    load: Callable[[str], Any]
    finish: Callable[[str, Any], Any] | None = None
    compute: Callable[[list[str], list[Any]], Sequence[Any]] | None = None
    key: Callable[[str], Hashable] = lambda name: None
    at_once: int = 1


@dataclass(frozen=True, slots=True)
class ShardFolder:
    """The finished shards of one artifact.

    Attributes:
        path: the folder.
        format: layout of the artifact.
        classes: class names by id.
        skip_bad: whether shards may lack images that failed.
    """

    path: Path
    format: str
    classes: Sequence[str]
    skip_bad: bool

    def file(self, number: int) -> Path:
        """Return the path of a shard."""
        return self.path / f"shard-{number:06d}.h5"

    def skipped(self, number: int) -> tuple[str, ...] | None:
        """Return the images that a shard lacks, or None where there is no readable shard."""
        try:
            with closing(Reader(self.file(number), self.format)) as reader:
                return reader.skipped
        except ArtifactError:
            return None

    def is_finished(self, number: int) -> bool:
        """Return whether a shard can be used as it is; remove it otherwise."""
        skipped = self.skipped(number)
        if skipped is not None and (self.skip_bad or not skipped):
            return True
        self.file(number).unlink(missing_ok=True)
        return False

    def kept_file(self, number: int) -> Path:
        """Return the path of what an interrupt or a failed image left of a shard."""
        return self.path / f"shard-{number:06d}-kept.h5"

    def kept(self, number: int) -> dict[str, Record]:
        """Return the records of a shard that an earlier run kept."""
        try:
            with closing(Reader(self.kept_file(number), self.format)) as reader:
                return {name: reader[name] for name in reader.names}
        except ArtifactError:
            return {}

    def keep(self, number: int, records: dict[str, Record]) -> None:
        """Keep the records of an unfinished shard."""
        with Writer(self.kept_file(number), self.format, self.classes) as writer:
            for name in sorted(records):
                writer.append(name, records[name])

    def write(self, number: int, records: dict[str, Record], failed: Iterable[str]) -> None:
        """Write a shard from validated records; only keep them if some images failed and must be
        retried.
        """
        if failed and not self.skip_bad:
            self.keep(number, records)
            return
        with Writer(self.file(number), self.format, self.classes, sorted(failed)) as writer:
            for name in sorted(records):
                writer.append(name, records[name])
        self.kept_file(number).unlink(missing_ok=True)

    def merge(self, count: int, world_size: int, out: Path) -> None:
        """Wait for the shards 0..count-1 of all ranks, then join them into the artifact `out`.

        Raises:
            UserError: a shard of the main process is gone.
        """
        skipped = list[str]()
        for number in range(count):
            while (names := self.skipped(number)) is None:
                if number % world_size == 0:  # this rank's own, the main process
                    raise UserError(
                        f"{self.file(number)}: is gone or damaged since it was written (was the "
                        "folder of unfinished work deleted?); run again"
                    )
                log.debug("waiting for shard %d of another rank", number)
                time.sleep(0.2)
            skipped += names
        files = [self.file(number) for number in range(count)]
        merge(files, out, self.format, self.classes, skipped)


def run(
    task: Task,
    names: Sequence[str],
    out: Path,
    *,
    stage: str,
    classes: Sequence[str],
    fingerprint: str,
    runtime: Runtime,
) -> None:
    """Apply `task` to all images and write the artifact of `stage` to `out`.

    Raises:
        ImageError: images failed (unless runtime.skip_bad), raised after all others are done and
            kept; or a worker was killed.
    """
    path = resume.folder(runtime.work, stage, f"{fingerprint}-{runtime.shard}")
    folder = ShardFolder(path, stage, classes, runtime.skip_bad)
    ordered, size = sorted(names), runtime.shard
    shards = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    mine = range(runtime.rank, len(shards), runtime.world_size)
    todo = {number: shards[number] for number in mine if not folder.is_finished(number)}
    if done := len(mine) - len(todo):
        log.info("%s: resumes, %d shards are finished", stage, done)
    failures = _write_shards(task, todo, folder, runtime) if todo else {}
    if failures:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in sorted(failures.items()))
        message = f"{stage}: {len(failures)} of {count(len(names), 'image')} failed:\n{reasons}"
        if not runtime.skip_bad:
            raise ImageError(
                f"{message}\nThe others are kept in {path} until the data set changes: run again, "
                "set runtime.skip_bad to leave these out, or repair them."
            )
        log.warning(message)
    if runtime.is_main_process:
        folder.merge(len(shards), runtime.world_size, out)
        resume.cleanup(runtime.work, stage)


def _write_shards(
    task: Task, shards: dict[int, list[str]], folder: ShardFolder, runtime: Runtime
) -> dict[str, str]:
    """Compute the shards and write each when complete; return failed images with their reasons."""
    stage, failures = folder.format, dict[str, str]()
    kept = {number: frozenset(folder.kept(number)) for number in shards}
    groups = [[name for name in names if name not in kept[n]] for n, names in shards.items()]
    total, quiet = sum(map(len, groups)), not runtime.is_main_process
    results = stream(task, groups, runtime.workers, runtime.batch)
    with (
        reraise_worker_death(ImageError, f"{stage}: ", "finished shards are kept, run again"),
        closing(results),
        tqdm(total=total, desc=stage, unit="image", disable=quiet, mininterval=1) as bar,
    ):
        for number, names in zip(shards, groups, strict=True):
            records, failed = folder.kept(number), dict[str, str]()
            try:
                for name, result in islice(results, len(names)):
                    _sort(stage, name, result, records, failed)
                    bar.update()
            except KeyboardInterrupt:
                folder.keep(number, records)
                done = f"{bar.n} of {count(total, 'image')}"
                raise ImageError(
                    f"{stage}: interrupted; the same command resumes after {done}"
                ) from None
            folder.write(number, records, failed)
            failures |= failed
    return failures


def _sort(
    stage: str, name: str, result: Any, records: dict[str, Record], failed: dict[str, str]
) -> None:
    """Put the result of an image with the records or, if it is none, with the failed ones."""
    try:
        if isinstance(result, BaseException):
            raise result
        records[name] = validate_record(stage, result)
    except UserError as error:
        failed[name] = str(error)
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {error}"


def results(
    task: Task, names: Sequence[str], *, stage: str, runtime: Runtime
) -> Iterator[tuple[str, Any]]:
    """Yield images with their results, in an order that depends on the names alone; keep nothing.

    Raises:
        ImageError: an image failed, or a worker was killed.
    """
    with (
        reraise_worker_death(ImageError, f"{stage}: "),
        closing(stream(task, [names], runtime.workers, runtime.batch)) as found,
    ):
        for name, result in found:
            if isinstance(result, BaseException):
                raise ImageError(f"{stage}: {name}: {result}") from result
            yield name, result


def stream(
    task: Task, groups: Iterable[Sequence[str]], workers: int, batch: int
) -> Generator[tuple[str, Any]]:
    """Yield every image with its result, or with the exception that it ended with.

    Args:
        task: what is done to every image.
        groups: names, each once. Groups come out in order, one after the other; those of a group
            and of equal key are computed together.
        workers: number of processes, 1 for this one. Close the generator to end them early.
        batch: how many images are computed together at most, or task.at_once if that is more.

    Raises:
        BrokenProcessPool: a worker was killed.
    """
    batch = max(batch, task.at_once)
    ahead = 2 * max(workers, batch)
    functions: dict[str, Any] = {"load": task.load, "finish": task.finish}
    if task.compute is None:
        functions = {"both": partial(_load_and_finish, task.load, task.finish)}
    with worker_pool(functions, workers) as submit:
        yield from in_order(_jobs(task, groups, batch, ahead, submit), ahead)


def _load_and_finish(
    load: Callable[[str], Any], finish: Callable[[str, Any], Any] | None, name: str
) -> Any:
    loaded = load(name)
    return loaded if finish is None else finish(name, loaded)


def _jobs(
    task: Task, groups: Iterable[Sequence[str]], batch: int, ahead: int, submit: Submit
) -> Iterator[Job]:
    """Submit the images in order; about `ahead` of them are loaded before they are computed."""
    if task.compute is None:
        yield from ((name, submit("both", name)) for group in groups for name in group)
        return
    loading: deque[list[Job]] = deque()
    for names in (names for group in groups for names in _batches(group, task.key, batch)):
        loading.append([(name, submit("load", name)) for name in names])
        if sum(map(len, loading)) >= ahead:
            yield from _compute(task, loading.popleft(), submit)
    while loading:
        yield from _compute(task, loading.popleft(), submit)


def _batches(names: Sequence[str], key: Callable[[str], Hashable], size: int) -> list[list[str]]:
    """Return batches of at most `size` names of equal key, keys in order of first appearance."""
    groups: dict[Hashable, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return [
        group[start : start + size]
        for group in groups.values()
        for start in range(0, len(group), size)
    ]


def _compute(task: Task, batch: Sequence[Job], submit: Submit) -> Iterator[Job]:
    """Compute what was loaded and submit it to be finished; yield failed images as they are."""
    names, items = list[str](), list[Any]()
    for name, loaded in batch:
        if loaded.exception() is not None:
            yield name, loaded
        else:
            names.append(name)
            items.append(unspill(loaded.result()))
    for name, result in zip(names, _guarded(task, names, items), strict=True):
        if isinstance(result, Exception) or task.finish is None:
            yield name, completed(result)
        else:
            yield name, submit("finish", name, result)


def _guarded(task: Task, names: list[str], items: list[Any]) -> Sequence[Any]:
    """Return what is computed of a batch; where that fails, of its images one by one, so that only
    bad ones are lost.
    """
    assert task.compute is not None
    if not items:
        return []
    try:
        return task.compute(names, items)
    except Exception as error:
        if len(items) == 1:
            return [error]
        log.warning("%d images failed together, retrying one by one: %s", len(items), error)
    # outside the handler, whose exception keeps the memory of the failed attempt alive
    return [_guarded(task, [name], [item])[0] for name, item in zip(names, items, strict=True)]
