"""Stage predictions: run the final models, semantic and instance, on the images of split `val`.

Reads data/dataset, data/semantic.safetensors, data/instance.safetensors; writes
data/predictions.h5.
    dvc repro predictions
    dvc exp run -S predictions.flip=true -S 'predictions.scales=[0.75,1.0,1.25]'
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np

from pipeline.core.artifacts import Record
from pipeline.core.device import stack
from pipeline.core.engine import Task
from pipeline.data.index import Index
from pipeline.labelling.crf import densecrf, label_map
from stages._command import DATASET, Parameters, Runtime, artifact, run_per_image, stage

if TYPE_CHECKING:  # networks are loaded where they are used: worker processes only run the CRF
    from pipeline.predict import InstancePredictor, SemanticPredictor


class Outputs(NamedTuple):
    """What the networks return for an image: uint8 [H,W,3] itself, class probabilities float32
    [L,H,W], and its instances as they are stored.
    """

    image: np.ndarray
    probabilities: np.ndarray
    instances: Record


@stage
def predictions(parameters: Parameters, runtime: Runtime) -> None:
    """Predict the validation images."""
    from pipeline.predict import instance_predictor, semantic_predictor

    index, section = Index.load(DATASET), parameters.predictions
    if section.crf.iterations:
        densecrf()  # or its absence is reported for every image
    files = [artifact(name, ".safetensors") for name in ("semantic", "instance")]
    label = semantic_predictor(files[0], runtime.device, scales=section.scales, flip=section.flip)
    find = instance_predictor(files[1], runtime.device, **section.instances.model_dump())
    refine = partial(_refine, section.crf.model_dump())
    task = Task(index.image, refine, partial(_predict, label, find, runtime), index.size)
    names = [name for name, image in index.items() if image.split == "val"]
    if not names:
        click.echo(
            "predictions: no image is in split `val`, so there is nothing to predict; set "
            "dataset.val to hold some out"
        )
    run_per_image("predictions", task, names, index.classes, section, [DATASET, *files], runtime)


def _predict(
    label: "SemanticPredictor",
    find: "InstancePredictor",
    runtime: Runtime,
    names: Sequence[str],
    images: Sequence[np.ndarray],
) -> list[Outputs]:
    """Return the outputs of both networks for images of one size."""
    from pipeline.predict import detection_record

    pixels = stack(images, runtime.device)
    with runtime.autocast():
        scores, instances = label(pixels), find(pixels)
    outputs = zip(images, scores, map(detection_record, instances), strict=True)
    return [Outputs(*output) for output in outputs]


def _refine(crf: Mapping[str, Any], name: str, outputs: Outputs) -> Record:
    """Return the label map, refined by the CRF, and the instances."""
    labels = label_map(outputs.image, outputs.probabilities, crf)
    return {"semantic": labels, **outputs.instances}


if __name__ == "__main__":
    predictions()
