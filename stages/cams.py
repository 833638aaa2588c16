"""Stage cams: class activation maps from several scales and mirrors.

Reads data/dataset, data/classifier.safetensors; writes data/cams.h5.
    dvc repro cams
    dvc exp run -S 'cams.scales=[1.0]' cams
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from pipeline import mapping
from pipeline.classifiers.extraction import activation_maps, cam_records
from pipeline.datasets.index import Index
from pipeline.datasets.loading import Pictures, stack
from pipeline.methods import CLASSIFIERS, rebuild
from pipeline.store import Record
from pipeline.weights import load_network
from stages import pictures
from stages.entry import DATASET, Parameters, Runtime, artefact, stage


@stage
def cams(parameters: Parameters, runtime: Runtime) -> None:
    """Extract the class activation maps of the training pictures."""
    index, section, weights = Index.load(DATASET), parameters.cams, artefact("classifier", ".safetensors")
    network = load_network(weights, "classifier", partial(rebuild, CLASSIFIERS), runtime.device)
    source = Pictures(index)

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Record]:
        """The maps of pictures of one size."""
        normalised = network.backbone.normalise(stack(images, runtime.device))
        tags = torch.from_numpy(np.stack([index.target(name) for name in names]))
        tags = tags.to(runtime.device, non_blocking=True)
        with runtime.autocast():
            maps = activation_maps(network, normalised, tags, section.scales, section.mirror)
        return cam_records(maps, [index[name].tags for name in names], images[0].shape[:2])

    task = mapping.Task(source.load, compute=compute, key=source.size)
    names = index.select("train")
    pictures.run("cams", task, names, index.classes, section, [DATASET, weights], runtime)


if __name__ == "__main__":
    cams()
