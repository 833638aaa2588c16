"""Stage cams: class activation maps from several scales and flips.

Reads data/dataset, data/classifier.safetensors; writes data/cams.h5.
    dvc repro cams
    dvc exp run -S 'cams.scales=[1.0]' cams
"""

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.classifiers import load_classifier
from pipeline.classifiers.extraction import activation_maps, cam_records
from pipeline.core import engine
from pipeline.core.artifacts import Record
from pipeline.core.weights import load_network
from pipeline.data.index import Index
from pipeline.data.loading import ImageSource, stack
from stages import _command
from stages._command import DATASET, Parameters, Runtime, artifact, stage


@stage
def cams(parameters: Parameters, runtime: Runtime) -> None:
    """Extract the class activation maps of the training images."""
    index, section, weights = (
        Index.load(DATASET),
        parameters.cams,
        artifact("classifier", ".safetensors"),
    )
    network = load_network(weights, "classifier", load_classifier, runtime.device)
    source = ImageSource(index)

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Record]:
        """The maps of images of one size."""
        normalized = network.backbone.normalize(stack(images, runtime.device))
        tags = torch.from_numpy(np.stack([index.target(name) for name in names]))
        tags = tags.to(runtime.device, non_blocking=True)
        with runtime.autocast():
            maps = activation_maps(network, normalized, tags, section.scales, section.flip)
        return cam_records(maps, [index[name].tags for name in names], images[0].shape[:2])

    task = engine.Task(source.load, compute=compute, key=source.size)
    names = index.select("train")
    _command.run("cams", task, names, index.classes, section, [DATASET, weights], runtime)


if __name__ == "__main__":
    cams()
