"""Stage segments: class-agnostic segments of the training pictures, by Segment Anything or by superpixels.

Reads data/dataset; writes data/segments.h5, without pictures under `backend: none`.
    dvc repro segments
    dvc exp run -S segments.backend=sam -S segments.checkpoint=$PWD/sam_vit_h_4b8939.pth -S classifier.method=s2c
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import mapping
from pipeline.datasets.index import Index
from pipeline.datasets.loading import Pictures
from pipeline.params.pictures import Segments
from pipeline.segmenters.sam import Everything, load_sam
from pipeline.segmenters.superpixels import Superpixels
from pipeline.store import Record
from stages import pictures
from stages.entry import DATASET, Parameters, Runtime, stage


@stage
def segments(parameters: Parameters, runtime: Runtime) -> None:
    """Divide every training picture into segments."""
    index, section = Index.load(DATASET), parameters.segments
    names = index.select("train") if section.backend != "none" else []
    work = task(Pictures(index), section, runtime)
    pictures.run("segments", work, names, index.classes, section, [DATASET], runtime)


@dataclass(frozen=True, slots=True)
class Division:
    """What the worker processes do to a picture."""

    segmenter: Superpixels

    def finish(self, name: str, image: np.ndarray) -> Record:
        """Its segments."""
        return self.segmenter.segment(image)


def task(source: Pictures, section: Segments, runtime: Runtime) -> mapping.Task:
    """How the chosen backend works: superpixels in worker processes, Segment Anything on the device."""
    if section.backend != "sam":
        segmenter = Superpixels(embeddings=section.embeddings, **section.superpixels.model_dump())
        return mapping.Task(source.load, Division(segmenter).finish)
    options = section.sam.model_dump()
    network = load_sam(options.pop("model"), section.checkpoint, section.sha256, runtime.device)
    everything = Everything(network, embeddings=section.embeddings, precision=runtime.precision, **options)

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Record]:
        """The segments of each picture."""
        return [everything.segment(image) for image in images]

    return mapping.Task(source.load, compute=compute)


if __name__ == "__main__":
    segments()
