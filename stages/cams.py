"""Stage cams: class activation maps over several scales and flips.

Reads data/dataset, data/classifier.safetensors; writes data/cams.h5.
    dvc repro cams
    dvc exp run -S 'cams.scales=[1.0]' cams
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline.core.artifacts import Record
from pipeline.core.device import stack
from pipeline.core.engine import Task
from pipeline.data.index import Index
from pipeline.params.pseudo_labels import Cams
from stages._command import DATASET, Parameters, Runtime, artifact, run_per_image, stage

if TYPE_CHECKING:  # networks are loaded where they are used: worker processes only read images
    from pipeline.classifiers.base import Classifier


@stage
def cams(parameters: Parameters, runtime: Runtime) -> None:
    """Extract the class activation maps of the training images."""
    from pipeline.classifiers import load_classifier
    from pipeline.core.weights import load_network

    index, section = Index.load(DATASET), parameters.cams
    weights = artifact("classifier", ".safetensors")
    network = load_network(weights, "classifier", load_classifier, runtime.device)
    compute = partial(_extract, network, index, section, runtime)
    task = Task(index.image, compute=compute, key=index.size)
    names, inputs = index.select("train"), [DATASET, weights]
    run_per_image("cams", task, names, index.classes, section, inputs, runtime)


def _extract(
    network: "Classifier",
    index: Index,
    section: Cams,
    runtime: Runtime,
    names: Sequence[str],
    images: Sequence[np.ndarray],
) -> list[Record]:
    """Return the maps of images of one size."""
    import torch

    from pipeline.classifiers.base import present
    from pipeline.classifiers.extraction import activation_maps, cam_records

    normalized = network.backbone.normalize(stack(images, runtime.device))
    tags = torch.from_numpy(np.stack([index.target(name) for name in names]))
    tags = present(tags).to(runtime.device, non_blocking=True)
    with runtime.autocast():
        maps = activation_maps(network, normalized, tags, section.scales, section.flip)
    return cam_records(maps, [index[name].tags for name in names], images[0].shape[:2])


if __name__ == "__main__":
    cams()
