"""Stage predictions: run the final model on the pictures of split `val`.

Reads data/dataset, data/semantic.safetensors; writes data/predictions.h5.
    dvc repro predictions
    dvc exp run -S predictions.mirror=true -S 'predictions.scales=[0.75,1.0,1.25]'
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from pipeline import mapping
from pipeline.crf import refine_probabilities
from pipeline.datasets.index import Index
from pipeline.datasets.loading import Pictures, stack
from pipeline.semantic import SemanticNet, probabilities
from pipeline.store import Record
from pipeline.weights import load_network
from stages import pictures
from stages.entry import DATASET, Parameters, Runtime, artefact, stage


@dataclass(frozen=True, slots=True)
class Refinement:
    """The CRF that the worker processes apply."""

    crf: Mapping[str, Any]

    def finish(self, name: str, computed: tuple[np.ndarray, np.ndarray]) -> Record:
        """The label map of a picture from its probabilities."""
        image, scores = computed
        return {"semantic": refine_probabilities(image, scores, self.crf).argmax(0).astype(np.uint8)}


@stage
def predictions(parameters: Parameters, runtime: Runtime) -> None:
    """Predict the validation pictures."""
    index, section, weights = (
        Index.load(DATASET),
        parameters.predictions,
        artefact("semantic", ".safetensors"),
    )
    network = load_network(weights, "semantic", rebuilt, runtime.device)
    source = Pictures(index)

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        with runtime.autocast():
            scores = probabilities(network, stack(images, runtime.device), section.scales, section.mirror)
        return list(zip(images, scores.cpu().numpy(), strict=True))

    task = mapping.Task(source.load, Refinement(section.crf.model_dump()).finish, compute, source.size)
    names = [name for name, picture in index.items() if picture.split == "val"]
    if not names:
        click.echo(
            "predictions: no picture is of split `val`, so there are none to predict; set dataset.val to hold some out"
        )
    pictures.run("predictions", task, names, index.classes, section, [DATASET, weights], runtime)


def rebuilt(header: Mapping[str, Any]) -> SemanticNet:
    """The untrained network that a weights file's header describes."""
    return SemanticNet(len(header["classes"]) + 1, header["backbone"])


if __name__ == "__main__":
    predictions()
