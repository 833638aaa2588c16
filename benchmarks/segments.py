"""Superpixels against SLIC with as many segments: time, and how well both follow the borders of
labeled objects.

The quality of a data set with masks, its training images every `step`-th:
    python -m benchmarks.segments data/dataset 4
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from skimage.segmentation import slic

from benchmarks.measure import Benchmark
from pipeline.data.index import Index
from pipeline.data.masks import read_semantic
from pipeline.metrics.segments import SegmentScores
from pipeline.params import presets
from pipeline.segmenters.prompting import Query
from pipeline.segmenters.superpixels import SuperpixelPrompter, Superpixels

SETTINGS = presets.load("folder")["segments"]["superpixels"]
HEIGHT, WIDTH = 240, 320


def sample_image() -> np.ndarray:
    """Return an image of smooth colored patches with noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH] / WIDTH
    waves = [np.sin(x * a + y * b + c) > 0 for a, b, c in rng.uniform(4, 20, (3, 3))]
    image = np.stack(waves, -1) * 90 + 80 + rng.normal(0, 6, (HEIGHT, WIDTH, 3))
    return image.clip(0, 255).astype(np.uint8)


def ours() -> Callable[[], object]:
    image, segmenter = sample_image(), Superpixels(embeddings=True, **SETTINGS)
    return lambda: segmenter.segment(image)


def plain_slic() -> Callable[[], object]:
    image = sample_image()
    return lambda: slic(image, 100, start_label=1)


def prompts() -> Callable[[], object]:
    record = Superpixels(embeddings=True, **SETTINGS).segment(sample_image())
    points = np.random.default_rng(0).uniform(0, (WIDTH, HEIGHT), (20, 1, 2)).astype(np.float32)
    return lambda: SuperpixelPrompter().prompt([Query(record, point) for point in points])


def quality(index: Index, names: Iterable[str]) -> str:
    """Return a table of boundary recall, achievable accuracy and number of segments, ours and
    SLIC's.
    """
    segmenter = Superpixels(embeddings=False, **SETTINGS)
    scores, counts = (
        {"superpixels": SegmentScores(), "SLIC": SegmentScores()},
        {"superpixels": 0, "SLIC": 0},
    )
    images = 0
    for name in names:
        image, truth = index.image(name), read_semantic(index, name)
        found = {"superpixels": segmenter.segment(image)["segments"]}
        found["SLIC"] = slic(image, int(found["superpixels"].max()), start_label=1)
        for key, segments in found.items():
            scores[key].add(truth, segments)
            counts[key] += int(segments.max())
        images += 1
    lines = [f"{images} images | boundary recall (2 px) | achievable accuracy | segments an image"]
    for key, score in scores.items():
        recall, accuracy = score.compute().values()
        lines.append(
            f"{key} | {100 * recall:.1f} | {100 * accuracy:.1f} | {counts[key] / images:.0f}"
        )
    return "\n".join(lines)


BENCHMARKS = (
    Benchmark(
        "superpixels",
        f"{WIDTH}x{HEIGHT}",
        ours,
        plain_slic,
        "SLIC of 100 segments (skimage), same run",
    ),
    Benchmark("prompts to superpixels", f"20 of an image {WIDTH}x{HEIGHT}", prompts, None, ""),
)

if __name__ == "__main__":
    dataset = Index.load(Path(sys.argv[1]))
    masked = [name for name in dataset.select("train") if dataset.has_masks(name)]
    print(quality(dataset, masked[:: int(sys.argv[2])]))
