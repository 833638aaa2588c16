"""Stage segments: class-agnostic segments of the training images, by Segment Anything or as
superpixels.

Reads data/dataset; writes data/segments.h5, which has no images with `backend: none`.
    dvc repro segments
    dvc exp run -S segments.backend=sam -S segments.checkpoint=$PWD/sam_vit_h_4b8939.pth
    dvc exp run -S segments.backend=transformers -S segments.checkpoint=$PWD/sam2.1-hiera-tiny
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline.core.artifacts import Record
from pipeline.core.engine import Task
from pipeline.data.index import Index
from pipeline.params.data import Segments
from pipeline.segmenters import load_network
from pipeline.segmenters.superpixels import Superpixels
from stages._command import DATASET, Parameters, Runtime, run_per_image, stage

if TYPE_CHECKING:  # superpixels need neither SAM nor torch
    from pipeline.segmenters.sam import AutomaticMaskGenerator


@stage
def segments(parameters: Parameters, runtime: Runtime) -> None:
    """Divide every training image into segments."""
    index, section = Index.load(DATASET), parameters.segments
    names = index.select("train") if section.backend != "none" else []
    if section.backend in ("sam", "transformers"):
        task = Task(index.image, compute=partial(_generate, _generator(section, runtime), runtime))
    else:
        superpixels = Superpixels(embeddings=section.embeddings, **section.superpixels.model_dump())
        task = Task(index.image, partial(_divide, superpixels))
    run_per_image("segments", task, names, index.classes, section, [DATASET], runtime)


def _generator(section: Segments, runtime: Runtime) -> "AutomaticMaskGenerator":
    from pipeline.segmenters.sam import AutomaticMaskGenerator

    options = section.sam.model_dump(exclude={"model"})
    sam = load_network(section, runtime.device)
    return AutomaticMaskGenerator(sam, embeddings=section.embeddings, **options)


def _generate(
    generator: "AutomaticMaskGenerator",
    runtime: Runtime,
    names: Sequence[str],
    images: Sequence[np.ndarray],
) -> list[Record]:
    with runtime.autocast():
        return [generator.segment(image) for image in images]


def _divide(superpixels: Superpixels, name: str, image: np.ndarray) -> Record:
    return superpixels.segment(image)


if __name__ == "__main__":
    segments()
