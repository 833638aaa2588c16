"""The per-image engine: the same bytes however the work is spread, interrupted or broken."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from select import PIPE_BUF
from typing import Any

import numpy as np
import psutil
import pytest

from pipeline.core import engine
from pipeline.core.artifacts import Reader, Writer
from pipeline.core.engine import ImageError, Task, run
from pipeline.errors import UserError
from tests.support.runtimes import runtime

ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"image {number:02d}" for number in range(20)]
CLASSES = ("cat", "dog")


@dataclass(frozen=True)
class Work:
    """Load a number, compute its square, finish with a map; loads are logged, bad images fail."""

    log: Path
    bad: tuple[str, ...] = ()
    pause: float = 0
    batches: list[int] = field(default_factory=list)

    def load(self, name: str) -> int:
        with self.log.open("a") as file:
            file.write(name + "\n")
        time.sleep(self.pause)
        if name in self.bad:
            raise ValueError(f"cannot read {name}.jpg")
        return int(name[-2:])

    def compute(self, names: Sequence[str], loaded: Sequence[int]) -> list[int]:
        self.batches.append(len(names))
        return [number**2 for number in loaded]

    def finish(self, name: str, computed: int) -> dict[str, np.ndarray]:
        assert name in NAMES
        return {"seeds": np.full((5 + computed % 3, 7), computed % 256, "u1")}

    def squared(self, name: str, loaded: int) -> dict[str, np.ndarray]:
        return self.finish(name, loaded**2)

    def task(self) -> Task:
        return Task(self.load, self.finish, self.compute, key=lambda name: int(name[-2:]) % 3)

    def loaded(self) -> Counter[str]:
        return Counter(self.log.read_text().splitlines() if self.log.exists() else [])


def go(
    task: Task, folder: Path, names: Sequence[str] = NAMES, key: str = "abc", **changes: Any
) -> bytes:
    out = folder / "seeds.h5"
    run(
        task,
        names,
        out,
        stage="seeds",
        classes=CLASSES,
        fingerprint=key,
        runtime=runtime(folder, **changes),
    )
    return out.read_bytes() if out.exists() else b""


@pytest.fixture
def logged(tmp_path: Path) -> Work:
    return Work(tmp_path / "log")


@pytest.fixture
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("undisturbed")
    return go(Work(folder / "log").task(), folder)


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "work").glob("seeds/*/shard-*.h5"))


def finished(folder: Path) -> list[Path]:
    return [path for path in shards(folder) if not path.stem.endswith("kept")]


def test_every_image_is_done_once_and_right(tmp_path: Path, logged: Work) -> None:
    go(logged.task(), tmp_path, NAMES[::-1])
    reader = Reader(tmp_path / "seeds.h5", "seeds")
    assert reader.names == NAMES
    assert reader.classes == CLASSES
    for number, name in enumerate(NAMES):
        assert reader[name]["seeds"].shape == (5 + number**2 % 3, 7)
        assert (reader[name]["seeds"] == number**2 % 256).all()
    assert logged.loaded() == Counter(NAMES)
    assert not (tmp_path / "work" / "seeds").exists(), "finished work is removed"
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    "changes", [{"batch": 1}, {"batch": 50}, {"shard": 1}, {"shard": 7}, {"shard": 100}]
)
def test_batches_and_shards_change_no_byte(
    tmp_path: Path, logged: Work, undisturbed: bytes, changes: dict[str, Any]
) -> None:
    assert go(logged.task(), tmp_path, **changes) == undisturbed


def test_a_task_may_lack_a_device_part_or_a_finish(
    tmp_path: Path, logged: Work, undisturbed: bytes
) -> None:
    def compute(names: Sequence[str], loaded: Sequence[int]) -> list[dict[str, np.ndarray]]:
        return [logged.squared(name, number) for name, number in zip(names, loaded, strict=True)]

    assert go(Task(logged.load, compute=compute), tmp_path) == undisturbed
    assert go(Task(logged.load, logged.squared), tmp_path) == undisturbed


def test_no_images_make_a_valid_empty_artifact(tmp_path: Path, logged: Work) -> None:
    go(logged.task(), tmp_path, [])
    assert Reader(tmp_path / "seeds.h5", "seeds").names == []


def test_an_image_that_fails_is_named_and_the_others_are_kept(
    tmp_path: Path, logged: Work, undisturbed: bytes
) -> None:
    bad = Work(logged.log, bad=(NAMES[5], NAMES[18]))
    with pytest.raises(ImageError, match="2 of 20 images failed") as caught:
        go(bad.task(), tmp_path)
    for name in bad.bad:
        assert f"  {name}: ValueError: cannot read {name}.jpg" in str(caught.value)
    assert not (tmp_path / "seeds.h5").exists()
    assert logged.loaded() == Counter(NAMES)
    logged.log.unlink()
    assert go(logged.task(), tmp_path) == undisturbed
    assert logged.loaded() == Counter(bad.bad), "only the failed ones"


def test_a_record_that_does_not_fit_fails_its_image(tmp_path: Path, logged: Work) -> None:
    def finish(name: str, computed: int) -> Any:
        wrong: dict[str, Any] = {
            NAMES[2]: {"seeds": np.zeros(3, "u1")},
            NAMES[6]: {},
            NAMES[9]: None,
        }
        return wrong.get(name, logged.finish(name, computed))

    with pytest.raises(ImageError, match="3 of 20") as caught:
        go(Task(logged.load, finish, logged.compute), tmp_path)
    assert f"{NAMES[2]}: seeds has 1 dimensions, expected 2" in str(caught.value)
    assert f"{NAMES[6]}: missing arrays: seeds" in str(caught.value)
    assert f"{NAMES[9]}: TypeError" in str(caught.value)
    assert len(finished(tmp_path)) == 2


def test_skip_bad_leaves_images_out_and_its_shards_serve_no_other_run(
    tmp_path: Path, logged: Work, undisturbed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Work(logged.log, bad=(NAMES[5], NAMES[18]))
    go(bad.task(), tmp_path, skip_bad=True)
    reader = Reader(tmp_path / "seeds.h5")
    assert reader.skipped == bad.bad
    assert reader.names == [name for name in NAMES if name not in bad.bad]
    with monkeypatch.context() as patch:
        patch.setattr(engine, "merge", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            go(bad.task(), tmp_path, skip_bad=True)
    assert len(shards(tmp_path)) == 5
    assert go(logged.task(), tmp_path) == undisturbed


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("press", [3, 12])
def test_an_interrupt_keeps_what_is_done(
    tmp_path: Path, logged: Work, undisturbed: bytes, press: int
) -> None:
    """Ctrl-C while an image is finished; what was finished before it is not done again."""
    finished: list[str] = []

    def finish(name: str, computed: int) -> dict[str, np.ndarray]:
        if len(finished) == press:
            signal.raise_signal(signal.SIGINT)
        finished.append(name)
        return logged.finish(name, computed)

    pressed = Task(logged.load, finish, logged.compute, logged.task().key)
    with pytest.raises(ImageError, match=r"seeds: interrupted; .* after \d+ of 20 images"):
        go(pressed, tmp_path, batch=1)
    assert len(list(tmp_path.rglob("*-kept.h5"))) == 1
    kept = {name for path in shards(tmp_path) for name in Reader(path).names}
    assert 0 < len(kept) <= press
    logged.log.unlink()
    assert go(logged.task(), tmp_path) == undisturbed
    assert logged.loaded() == Counter(set(NAMES) - kept)


def test_images_of_a_failed_batch_are_retried_one_by_one(tmp_path: Path, logged: Work) -> None:
    def compute(names: Sequence[str], loaded: Sequence[int]) -> list[int]:
        if 7 in loaded:
            raise RuntimeError("no memory for this one")
        return logged.compute(names, loaded)

    with pytest.raises(
        ImageError, match=r"1 of 20 images failed:\n  image 07: RuntimeError: no memory"
    ):
        go(Task(logged.load, logged.finish, compute), tmp_path)


def test_a_damaged_shard_is_recomputed(tmp_path: Path, logged: Work, undisturbed: bytes) -> None:
    with pytest.raises(ImageError):
        go(Work(logged.log, bad=(NAMES[0],)).task(), tmp_path)
    whole = finished(tmp_path)
    assert len(whole) == 4
    whole[1].write_bytes(whole[1].read_bytes()[:-200])
    whole[2].write_text("not a shard")
    logged.log.unlink()
    assert go(logged.task(), tmp_path) == undisturbed
    assert logged.loaded() == Counter([NAMES[0], *NAMES[8:16]])


@pytest.mark.timeout(60)
def test_work_that_is_deleted_meanwhile_is_an_error(
    tmp_path: Path, logged: Work, undisturbed: bytes
) -> None:
    """Or the main process would wait for its own shards forever."""

    def finish(name: str, computed: int) -> Any:
        if name == NAMES[17]:
            shutil.rmtree(tmp_path / "work")
        return logged.finish(name, computed)

    with pytest.raises(UserError, match=r"work/.*/shard-000000\.h5: is gone .*run again"):
        go(Task(logged.load, finish, logged.compute), tmp_path)
    assert not (tmp_path / "seeds.h5").exists()
    assert go(logged.task(), tmp_path) == undisturbed


def test_shards_of_another_fingerprint_are_not_mixed_in(
    tmp_path: Path, logged: Work, undisturbed: bytes
) -> None:
    with pytest.raises(ImageError):
        go(Work(logged.log, bad=(NAMES[0],)).task(), tmp_path, key="older")
    for path in shards(tmp_path):
        names = Reader(path).names
        with Writer(path, "seeds", CLASSES) as writer:
            for name in names:
                writer.write(name, {"seeds": np.zeros((1, 1), "u1")})
    assert go(logged.task(), tmp_path, key="newer") == undisturbed


def test_loads_run_ahead_by_a_bounded_number(tmp_path: Path, logged: Work) -> None:
    loaded, computed, finished, most = 0, 0, 0, [0, 0]

    def load(name: str) -> int:
        nonlocal loaded
        loaded += 1
        most[0] = max(most[0], loaded - computed)
        return 0

    def compute(names: Sequence[str], items: Sequence[int]) -> list[int]:
        nonlocal computed
        computed += len(names)
        most[1] = max(most[1], computed - finished)
        return list(items)

    def finish(name: str, item: int) -> dict[str, np.ndarray]:
        nonlocal finished
        finished += 1
        return {"seeds": np.zeros((1, 1), "u1")}

    names = [f"{number:04d}" for number in range(200)]
    go(Task(load, finish, compute), tmp_path, names, shard=50)
    assert finished == 200
    assert most[0] <= 3 * 3, "two batches ahead and the one that is computed"
    assert most[1] <= 3


SCRIPT = """
import sys
from pathlib import Path

sys.path.insert(0, {root!r})
from tests.core.test_engine import Work, go

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    go(Work(folder / "log", pause=0.1).task(), folder, workers=2)
"""


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_run_resumes_and_its_workers_end(
    tmp_path: Path, logged: Work, undisturbed: bytes
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT)))
    process = subprocess.Popen([sys.executable, script, tmp_path])
    wait_until(lambda: len(shards(tmp_path)) >= 2)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(
        lambda: not any(child.is_running() and child.status() != "zombie" for child in children)
    )
    done = [name for path in shards(tmp_path) for name in Reader(path).names]
    assert 8 <= len(done) < 20
    logged.log.unlink()
    assert go(logged.task(), tmp_path) == undisturbed
    assert logged.loaded() == Counter(name for name in NAMES if name not in done)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_need_no_artifact(tmp_path: Path, workers: int) -> None:
    work = Work(tmp_path / "log")
    task = Task(work.load, compute=lambda names, items: [item**2 for item in items])
    found = engine.results(task, NAMES, stage="walk", runtime=runtime(tmp_path, workers=workers))
    assert list(found) == [(name, int(name[-2:]) ** 2) for name in NAMES]
    assert not (tmp_path / "work").exists()
    bad = Work(tmp_path / "log", bad=(NAMES[3],))
    found = engine.results(Task(bad.load), NAMES, stage="walk", runtime=runtime(tmp_path))
    with pytest.raises(ImageError, match=rf"walk: {NAMES[3]}: cannot read {NAMES[3]}.jpg"):
        list(found)


@pytest.mark.parametrize(
    ("keys", "at_once", "sizes"), [(2, 1, [3, 3, 3, 1] * 2), (1, 8, [8, 8, 4])]
)
def test_images_of_one_key_are_computed_together(
    tmp_path: Path, keys: int, at_once: int, sizes: list[int]
) -> None:
    seen: list[list[int]] = []

    def compute(names: Sequence[str], items: list[int]) -> Sequence[int]:
        seen.append(items)
        return items

    load = Work(tmp_path / "log").load
    task = Task(load, None, compute, key=lambda name: int(name[-2:]) % keys, at_once=at_once)
    list(engine.results(task, NAMES, stage="labels", runtime=runtime(tmp_path)))
    assert list(map(len, seen)) == sizes
    assert all(len({number % keys for number in batch}) == 1 for batch in seen)


def die_within_a_write(name: str) -> np.ndarray:
    """Return a large value from a worker that is killed halfway through any large write."""
    connection: Any = Connection
    whole = connection._send

    def half(self: Any, content: bytes, *write: Any) -> None:
        if len(content) > PIPE_BUF:
            whole(self, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        whole(self, content, *write)

    connection._send = half
    return np.full(10**6, int(name[-2:]))


@pytest.mark.timeout(120)
def test_no_result_is_cut_off_in_the_pipe_that_workers_share(tmp_path: Path) -> None:
    """Or everybody would wait forever for the rest of one."""
    here = runtime(tmp_path, workers=2)
    found = engine.results(Task(die_within_a_write), NAMES, stage="walk", runtime=here)
    assert {name: int(values[0]) for name, values in found} == {
        name: int(name[-2:]) for name in NAMES
    }
