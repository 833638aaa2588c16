"""CAMs on disk: one HDF5 file against what the published code stores.

The published code stores them as one pickled npy an image, with the maps once more at full size in
float32.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.measure import Benchmark, Bytes, temporary_folder
from pipeline.core.artifacts import Writer

IMAGES, HEIGHT, WIDTH = 100, 375, 500
GRID = ((HEIGHT - 1) // 4 + 1, (WIDTH - 1) // 4 + 1)
Items = list[Mapping[str, np.ndarray]]


def smooth_maps(seed: int, maps: int, size: tuple[int, int]) -> np.ndarray:
    """Return smooth maps float32 [maps,h,w] in [0,1]."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: size[0], : size[1]]
    waves = [
        np.sin(x / max(size) * a + c) * np.sin(y / max(size) * b + c)
        for a, b, c in rng.uniform(3, 12, (maps, 3))
    ]
    return np.clip(waves, 0, 1).astype(np.float32)


def cams() -> Items:
    """Return records of two class maps each."""
    labels, size = np.array([3, 14], np.uint8), np.array([HEIGHT, WIDTH], np.int32)
    return [
        {"cams": smooth_maps(seed, 2, GRID), "labels": labels, "size": size}
        for seed in range(IMAGES)
    ]


def ours() -> Callable[[], object]:
    records, folder = cams(), temporary_folder()

    def call() -> Bytes:
        with Writer(folder / "cams.h5", "cams", ("a",) * 20) as writer:
            for number, record in enumerate(records):
                writer.write(f"2007_{number:06d}", record)
        return bytes_an_image(folder)

    return call


def published() -> Callable[[], object]:
    records, folder, full = cams(), temporary_folder(), smooth_maps(0, 2, (HEIGHT, WIDTH))

    def call() -> Bytes:
        for number, record in enumerate(records):
            stored = {"keys": record["labels"], "cam": record["cams"], "high_res": full}
            np.save(folder / f"{number}.npy", np.array(stored, dtype=object), allow_pickle=True)
        return bytes_an_image(folder)

    return call


def bytes_an_image(folder: Path) -> Bytes:
    return Bytes(sum(file.stat().st_size for file in folder.iterdir()) / IMAGES)


BENCHMARKS = (
    Benchmark(
        "CAMs on disk",
        f"an image of {WIDTH}x{HEIGHT}, 2 classes",
        ours,
        published,
        "published layout (pickled npy an image), same run",
        runs=1,
    ),
)
