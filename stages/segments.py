"""Stage segments: class-agnostic segments of the training images, by Segment Anything or by
superpixels.

Reads data/dataset; writes data/segments.h5, without images under `backend: none`.
    dvc repro segments
    dvc exp run -S segments.backend=sam -S segments.checkpoint=$PWD/sam_vit_h_4b8939.pth -S classifier.method=s2c
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core import engine
from pipeline.core.artifacts import Record
from pipeline.data.index import Index
from pipeline.data.loading import ImageSource
from pipeline.params.data import Segments
from pipeline.segmenters.sam import AutomaticMaskGenerator, load_sam
from pipeline.segmenters.superpixels import Superpixels
from stages import _command
from stages._command import DATASET, Parameters, Runtime, stage


@stage
def segments(parameters: Parameters, runtime: Runtime) -> None:
    """Divide every training image into segments."""
    index, section = Index.load(DATASET), parameters.segments
    names = index.select("train") if section.backend != "none" else []
    work = task(ImageSource(index), section, runtime)
    _command.run("segments", work, names, index.classes, section, [DATASET], runtime)


@dataclass(frozen=True, slots=True)
class Division:
    """What the worker processes do to an image."""

    segmenter: Superpixels

    def finish(self, name: str, image: np.ndarray) -> Record:
        """Its segments."""
        return self.segmenter.segment(image)


def task(source: ImageSource, section: Segments, runtime: Runtime) -> engine.Task:
    """How the chosen backend works: superpixels in worker processes, Segment Anything on the
    device.
    """
    if section.backend != "sam":
        segmenter = Superpixels(embeddings=section.embeddings, **section.superpixels.model_dump())
        return engine.Task(source.load, Division(segmenter).finish)
    options = section.sam.model_dump()
    network = load_sam(options.pop("model"), section.checkpoint, section.sha256, runtime.device)
    everything = AutomaticMaskGenerator(
        network, embeddings=section.embeddings, precision=runtime.precision, **options
    )

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Record]:
        """The segments of each image."""
        return [everything.segment(image) for image in images]

    return engine.Task(source.load, compute=compute)


if __name__ == "__main__":
    segments()
