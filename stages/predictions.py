"""Stage predictions: run the final models, semantic and instance, on the pictures of split `val`.

Reads data/dataset, data/semantic.safetensors, data/instance.safetensors; writes data/predictions.h5.
    dvc repro predictions
    dvc exp run -S predictions.mirror=true -S 'predictions.scales=[0.75,1.0,1.25]'
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from torch import Tensor

from pipeline import mapping
from pipeline.crf import refine_probabilities
from pipeline.datasets.index import Index
from pipeline.datasets.loading import Pictures, stack
from pipeline.instances.detections import Detections, none_found
from pipeline.instances.masks import pack
from pipeline.methods import INSTANCES, rebuild, room
from pipeline.semantic import SemanticNet, probabilities
from pipeline.store import Record
from pipeline.weights import load_network, read_weights
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
        refined = refine_probabilities(found.image, found.probabilities, self.crf)
        return {"semantic": refined.argmax(0).astype(np.uint8), **found.instances}


@stage
def predictions(parameters: Parameters, runtime: Runtime) -> None:
    """Predict the validation pictures."""
    index, section = Index.load(DATASET), parameters.predictions
    files = [artefact(name, ".safetensors") for name in ("semantic", "instance")]
    semantic = load_network(files[0], "semantic", semantic_network, runtime.device)
    find = finder(files[1], section.instances.model_dump(), runtime)
    source = Pictures(index)

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Found]:
        pixels = stack(images, runtime.device)
        with runtime.autocast():
            scores = probabilities(semantic, pixels, section.scales, section.mirror).cpu().numpy()
            instances = find(pixels)
        return [Found(*found) for found in zip(images, scores, map(as_record, instances), strict=True)]

    task = mapping.Task(source.load, Refinement(section.crf.model_dump()).finish, compute, source.size)
    names = [name for name, picture in index.items() if picture.split == "val"]
    if not names:
        click.echo(
            "predictions: no picture is of split `val`, so there are none to predict; set dataset.val to hold some out"
        )
    pictures.run("predictions", task, names, index.classes, section, [DATASET, *files], runtime)


def semantic_network(header: Mapping[str, Any]) -> SemanticNet:
    """The untrained semantic network that a weights file's header describes."""
    return SemanticNet(len(header["classes"]) + 1, header["backbone"])


def finder(path: Path, settings: Mapping[str, Any], runtime: Runtime) -> Callable[[Tensor], list[Detections]]:
    """What finds the instances of pictures [B,3,H,W]: the model of a weights file, or nothing where that holds none."""
    method = read_weights(path)[1]["method"]
    if method == "none":
        return lambda pixels: [none_found(pixels.shape[2], pixels.shape[3])] * len(pixels)
    network = load_network(path, "instance", partial(rebuild, INSTANCES), runtime.device)
    return partial(room(INSTANCES, method, "detections").detect, network, **settings)


def as_record(found: Detections) -> Record:
    """Detections as the artefact holds them."""
    masks, classes, scores = (part.cpu().numpy() for part in found)
    return {"instances": pack(masks), "classes": classes.astype(np.uint8), "scores": scores}


if __name__ == "__main__":
    predictions()
