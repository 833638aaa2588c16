"""How well class maps of the built-in scenes lie on the parts that tell the class, apart from the
bodies that tell nothing.

python -m benchmarks.parts SEED data/cams.h5 [other/cams.h5 ...]
"""

import sys
from collections.abc import Iterable

import numpy as np

from pipeline.core.artifacts import Reader
from pipeline.data.grid import upsample
from pipeline.metrics.semantic import ThresholdCurve, threshold_grid
from pipeline.readers.scenes import CLASSES
from pipeline.readers.scenes.scene import place
from pipeline.readers.scenes.toys import silhouettes


def part_labels(index: int, seed: int, numbers: dict[str, int]) -> np.ndarray:
    """Return the label map uint8 [H,W] of the parts seen in scene `index`: numbers[class] there, 0
    elsewhere.
    """
    _, toys, size = place(index, seed)
    labels = np.zeros(size, np.uint8)
    for toy in toys:
        whole, part = silhouettes(toy, *size, 1.0)
        labels[whole] = 0
        labels[part] = numbers[toy.name]
    return labels


def measure(reader: Reader, names: Iterable[str], seed: int) -> tuple[float, float]:
    """Return the mIoU with the parts at the best threshold, and the mean share of a map's sum that
    lies on its class's parts.
    """
    numbers = {name: place_ + 1 for place_, name in enumerate(reader.classes)}
    curve, shares = ThresholdCurve(reader.classes, threshold_grid(0.15)), []
    for name in names:
        truth = part_labels(int(name.removeprefix("scene_")), seed, numbers)
        record = reader[name]
        maps = upsample(record["cams"], truth.shape)
        curve.add(truth, maps, record["labels"])
        for one, label in zip(maps, record["labels"], strict=True):
            shares.append(one[truth == label + 1].sum() / max(float(one.sum()), 1e-6))
    return curve.best()[1], float(np.mean(shares))


def main(seed: int, paths: list[str]) -> None:
    """Print a table, a row a file."""
    print(
        "| class maps | mIoU with the telling parts, best threshold | share of the map on them |\n|---|---|---|"
    )
    for path in paths:
        reader = Reader(path, "cams")
        missing = set(reader.classes) - set(CLASSES)
        if missing:
            raise SystemExit(
                f"{path}: not of the built-in scenes, which have no class {', '.join(sorted(missing))}"
            )
        score, share = measure(reader, reader.names, seed)
        print(f"| {path} | {100 * score:.1f} | {100 * share:.1f} % |")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
