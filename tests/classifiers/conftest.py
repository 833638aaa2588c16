"""A small data set with segments."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.classifiers.base import TrainingData
from pipeline.core.artifacts import Reader, Record, Writer
from pipeline.data.index import ImageEntry, Index
from pipeline.segmenters.prompting import PromptableSegments
from tests.classifiers.oracle import GREEN, RED, Oracle


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    """Four images: a red and a green object on gray, each object alone, and nothing."""
    generator = np.random.default_rng(0)
    images: list[ImageEntry] = []
    records: dict[str, Record] = {}
    for name, tags in (("a", (0, 1)), ("b", (0,)), ("c", (1,)), ("d", ())):
        segments = np.full((90, 120), 3, np.uint16)
        segments[:, 60:] = 300
        segments[:4] = 0
        image = generator.integers(90, 110, (90, 120, 3)).astype(np.uint8)
        for tag, (rows, columns) in enumerate(
            ((slice(10, 40), slice(8, 50)), (slice(45, 85), slice(70, 112)))
        ):
            if tag in tags:
                segments[rows, columns] = (RED, GREEN)[tag]
                image[rows, columns] = ((250, 0, 0), (0, 250, 0))[tag]
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        images.append(ImageEntry(name, f"{name}.png", 90, 120, "train", tags, None, None, ""))
        ids = int(segments.max())
        records[name] = {
            "segments": segments,
            "stability": np.ones(ids, np.float32),
            "iou": np.ones(ids, np.float32),
            "embeddings": np.ones((2, 3, 3), np.float16),
        }
    with Writer(tmp_path / "segments.h5", "segments", ("red", "green")) as writer:
        for name, record in records.items():
            writer.write(name, record)
    reader = Reader(tmp_path / "segments.h5", "segments")
    segments_of_images = PromptableSegments(reader, {"whole": Oracle()})
    index = Index(("red", "green"), images, tmp_path, tmp_path, {})
    mean = (0.4, 0.4, 0.4)
    return TrainingData(index, ["a", "b", "c", "d"], (64, 192), 96, mean, segments_of_images)
