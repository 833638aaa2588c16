"""Stage predictions: run the final models, semantic and instance, on the pictures of split `val`.

Reads data/dataset, data/semantic.safetensors, data/instance.safetensors; writes data/predictions.h5.
    dvc repro predictions
    dvc exp run -S predictions.mirror=true -S 'predictions.scales=[0.75,1.0,1.25]'
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import click
import numpy as np

from pipeline import mapping
from pipeline.datasets.index import Index
from pipeline.datasets.loading import Pictures, stack
from pipeline.final import as_record, finder, label_map, labeller
from pipeline.store import Record
from stages import pictures
from stages.entry import DATASET, Parameters, Runtime, artefact, stage


class Found(NamedTuple):
    """What the networks say of a picture: uint8 [H,W,3] itself, class probabilities [L,H,W], and its instances as bits."""

    image: np.ndarray
    probabilities: np.ndarray
    instances: Record


@dataclass(frozen=True, slots=True)
class Refinement:
    """The CRF that the worker processes apply."""

    crf: Mapping[str, Any]

    def finish(self, name: str, found: Found) -> Record:
        """The label map of a picture from its probabilities, and its instances as they are."""
        return {"semantic": label_map(found.image, found.probabilities, self.crf), **found.instances}


@stage
def predictions(parameters: Parameters, runtime: Runtime) -> None:
    """Predict the validation pictures."""
    index, section = Index.load(DATASET), parameters.predictions
    files = [artefact(name, ".safetensors") for name in ("semantic", "instance")]
    label = labeller(files[0], runtime.device, scales=section.scales, mirror=section.mirror)
    find = finder(files[1], runtime.device, **section.instances.model_dump())
    source = Pictures(index)

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Found]:
        """What both networks say of pictures of one size."""
        pixels = stack(images, runtime.device)
        with runtime.autocast():
            scores, instances = label(pixels), find(pixels)
        return [Found(*found) for found in zip(images, scores, map(as_record, instances), strict=True)]

    task = mapping.Task(source.load, Refinement(section.crf.model_dump()).finish, compute, source.size)
    names = [name for name, picture in index.items() if picture.split == "val"]
    if not names:
        click.echo(
            "predictions: no picture is of split `val`, so there are none to predict; set dataset.val to hold some out"
        )
    pictures.run("predictions", task, names, index.classes, section, [DATASET, *files], runtime)


if __name__ == "__main__":
    predictions()
