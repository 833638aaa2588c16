"""Stage predictions: run the final models, semantic and instance, on the images of split `val`.

Reads data/dataset, data/semantic.safetensors, data/instance.safetensors; writes
data/predictions.h5.
    dvc repro predictions
    dvc exp run -S predictions.flip=true -S 'predictions.scales=[0.75,1.0,1.25]'
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import click
import numpy as np

from pipeline.core import engine
from pipeline.core.artifacts import Record
from pipeline.data.index import Index
from pipeline.data.loading import ImageSource, stack
from pipeline.predict import (
    detection_record,
    instance_predictor,
    label_map,
    semantic_predictor,
)
from stages import _command
from stages._command import DATASET, Parameters, Runtime, artifact, stage


class Found(NamedTuple):
    """What the networks say of an image: uint8 [H,W,3] itself, class probabilities [L,H,W], and its
    instances as bits.
    """

    image: np.ndarray
    probabilities: np.ndarray
    instances: Record


@dataclass(frozen=True, slots=True)
class Refinement:
    """The CRF that the worker processes apply."""

    crf: Mapping[str, Any]

    def finish(self, name: str, found: Found) -> Record:
        """The label map of an image from its probabilities, and its instances as they are."""
        return {
            "semantic": label_map(found.image, found.probabilities, self.crf),
            **found.instances,
        }


@stage
def predictions(parameters: Parameters, runtime: Runtime) -> None:
    """Predict the validation images."""
    index, section = Index.load(DATASET), parameters.predictions
    files = [artifact(name, ".safetensors") for name in ("semantic", "instance")]
    label = semantic_predictor(files[0], runtime.device, scales=section.scales, flip=section.flip)
    find = instance_predictor(files[1], runtime.device, **section.instances.model_dump())
    source = ImageSource(index)

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Found]:
        """What both networks say of images of one size."""
        pixels = stack(images, runtime.device)
        with runtime.autocast():
            scores, instances = label(pixels), find(pixels)
        return [
            Found(*found)
            for found in zip(images, scores, map(detection_record, instances), strict=True)
        ]

    task = engine.Task(
        source.load, Refinement(section.crf.model_dump()).finish, compute, source.size
    )
    names = [name for name, image in index.items() if image.split == "val"]
    if not names:
        click.echo(
            "predictions: no image is of split `val`, so there are none to predict; set dataset.val to hold some out"
        )
    _command.run("predictions", task, names, index.classes, section, [DATASET, *files], runtime)


if __name__ == "__main__":
    predictions()
