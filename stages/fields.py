"""Stage fields: class boundary map and displacement field of every training picture.

Reads data/dataset, data/irnet.safetensors; writes data/fields.h5.
    dvc repro fields
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline import mapping
from pipeline.datasets.index import Index
from pipeline.datasets.loading import Pictures, stack
from pipeline.irnet.network import IRNet, fields_of
from pipeline.store import Record
from pipeline.weights import load_network
from stages import pictures
from stages.entry import DATASET, Parameters, Runtime, artefact, stage


@stage
def fields(parameters: Parameters, runtime: Runtime) -> None:
    """Compute class boundaries and displacements."""
    index, section, weights = Index.load(DATASET), parameters.fields, artefact("irnet", ".safetensors")
    network = load_network(weights, "irnet", rebuilt, runtime.device)
    source = Pictures(index)

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Record]:
        """Boundaries [h,w] and displacements [2,h,w] of pictures of one size."""
        normalised = network.backbone.normalise(stack(images, runtime.device))
        with runtime.autocast():
            boundary, displacement = fields_of(network, normalised, section.mirror)
        pairs = zip(boundary.cpu().numpy(), displacement.cpu().numpy(), strict=True)
        return [{"boundary": b, "displacement": d} for b, d in pairs]

    task = mapping.Task(source.load, compute=compute, key=source.size)
    names = index.select("train")
    pictures.run("fields", task, names, index.classes, section, [DATASET, weights], runtime)


def rebuilt(header: Mapping[str, Any]) -> IRNet:
    """The untrained network that a weights file's header describes."""
    return IRNet(header["backbone"])


if __name__ == "__main__":
    fields()
