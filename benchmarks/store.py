"""Artifacts of 300 images, written and read: one HDF5 file against what the published code stores.

That is for CAMs a pickled npy an image with the maps once more at full size, in float32, and for
seeds a PNG an image.
"""

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure import Benchmark
from pipeline.core.artifacts import Reader, Writer
from pipeline.data.grid import upsample

IMAGES, HEIGHT, WIDTH = 300, 375, 500
GRID = ((HEIGHT - 1) // 4 + 1, (WIDTH - 1) // 4 + 1)
NAMES = tuple(f"2007_{number:06d}" for number in range(IMAGES))
Items = list[Mapping[str, np.ndarray]]


def cams() -> Items:
    """Return records of two smooth class maps each."""
    return [
        {
            "cams": _smooth(seed, 2, GRID),
            "labels": np.array([3, 14], np.uint8),
            "size": np.array([HEIGHT, WIDTH], np.int32),
        }
        for seed in range(IMAGES)
    ]


def seeds() -> Items:
    """Return records of one label map each: background, a class and ignored pixels between them."""
    maps = (_smooth(seed, 1, (HEIGHT, WIDTH))[0] for seed in range(IMAGES))
    return [
        {"seeds": np.where(m > 0.6, 15, np.where(m > 0.4, 255, 0)).astype(np.uint8)} for m in maps
    ]


def _smooth(seed: int, maps: int, size: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: size[0], : size[1]]
    unit = max(size)
    waves = [
        np.sin(x / unit * a + c) * np.sin(y / unit * b + c)
        for a, b, c in rng.uniform(3, 12, (maps, 3))
    ]
    return np.clip(waves, 0, 1).astype(np.float32)


SOURCES = {
    "cams": "published layout (pickled npy an image, maps also at full size)",
    "seeds": "published layout (PNG an image)",
}
KINDS: Mapping[str, Callable[[], Items]] = {"cams": cams, "seeds": seeds}


def write_ours(kind: str) -> Callable[[], object]:
    items, folder = KINDS[kind](), _folder()
    return lambda: _write_ours(kind, items, folder)


def write_published(kind: str) -> Callable[[], object]:
    items, folder = KINDS[kind](), _folder()
    full = _full(items)
    return lambda: _write_published(items, full, folder)


def read_ours(kind: str) -> Callable[[], object]:
    path = _write_ours(kind, KINDS[kind](), _folder())

    def call() -> int:
        reader = Reader(path, kind)
        total = sum(array.nbytes for name in reader for array in reader[name].values())
        reader.close()
        return total

    return call


def read_published(kind: str) -> Callable[[], object]:
    items, folder = KINDS[kind](), _folder()
    _write_published(items, _full(items), folder)

    def call() -> int:
        if kind == "seeds":
            return sum(np.asarray(Image.open(folder / f"{name}.png")).nbytes for name in NAMES)
        records = (np.load(folder / f"{name}.npy", allow_pickle=True).item() for name in NAMES)
        return sum(array.nbytes for record in records for array in record.values())

    return call


def _write_ours(kind: str, items: Items, folder: Path) -> Path:
    path = folder / f"{kind}.h5"
    with Writer(path, kind, ("a",) * 20) as writer:
        for name, item in zip(NAMES, items, strict=True):
            writer.write(name, item)
    return path


def _write_published(items: Items, full: list[np.ndarray], folder: Path) -> None:
    for name, item, large in zip(NAMES, items, full, strict=True):
        if "seeds" in item:
            Image.fromarray(item["seeds"]).save(folder / f"{name}.png")
        else:
            record = {"keys": item["labels"], "cam": item["cams"], "high_res": large}
            np.save(folder / f"{name}.npy", np.array(record, dtype=object), allow_pickle=True)


def _full(items: Items) -> list[np.ndarray]:
    """Return class maps at full size (one image's for all: their content costs nothing in an npy)."""
    if "seeds" in items[0]:
        return [items[0]["seeds"]] * len(items)
    return [upsample(items[0]["cams"], (HEIGHT, WIDTH))] * len(items)


def _folder() -> Path:
    """Return a new folder that goes with this process."""
    folder = Path(tempfile.mkdtemp(prefix="weakmask-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def sizes(kind: str) -> tuple[int, int]:
    """Return the bytes an image takes: ours, published."""
    ours, published = _folder(), _folder()
    items = KINDS[kind]()
    _write_ours(kind, items, ours)
    _write_published(items, _full(items), published)
    return _bytes(ours) // IMAGES, _bytes(published) // IMAGES


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def benchmarks() -> tuple[Benchmark, ...]:
    """Return the rows."""
    rows = []
    for kind, what in (("cams", "2 class maps"), ("seeds", "a label map")):
        size = f"{IMAGES} images {WIDTH}x{HEIGHT}, {what} each"
        for verb, ours, published in (
            ("write", write_ours, write_published),
            ("read", read_ours, read_published),
        ):
            rows.append(
                Benchmark(
                    f"{verb} {kind}",
                    size,
                    partial(ours, kind),
                    partial(published, kind),
                    f"{SOURCES[kind]}, same run",
                    runs=3,
                )
            )
    return tuple(rows)


BENCHMARKS = benchmarks()


def main() -> None:
    """Print the bytes an image, which the table of times cannot hold: `python -m benchmarks.store`."""
    for kind in KINDS:
        ours, published = sizes(kind)
        print(f"{kind}: {ours} bytes an image, published layout {published}")


if __name__ == "__main__":
    main()
