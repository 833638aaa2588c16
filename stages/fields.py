"""Stage fields: class boundary map and displacement field of every training image.

Reads data/dataset, data/irnet.safetensors; writes data/fields.h5.
    dvc repro fields
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.core import engine
from pipeline.core.artifacts import Record
from pipeline.core.weights import load_network
from pipeline.data.index import Index
from pipeline.data.loading import ImageSource, stack
from pipeline.irnet.network import IRNet, fields_of
from stages import _command
from stages._command import DATASET, Parameters, Runtime, artifact, stage


@stage
def fields(parameters: Parameters, runtime: Runtime) -> None:
    """Compute class boundaries and displacements."""
    index, section, weights = (
        Index.load(DATASET),
        parameters.fields,
        artifact("irnet", ".safetensors"),
    )
    network = load_network(weights, "irnet", rebuilt, runtime.device)
    source = ImageSource(index)

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Record]:
        """Boundaries [h,w] and displacements [2,h,w] of images of one size."""
        normalized = network.backbone.normalize(stack(images, runtime.device))
        with runtime.autocast():
            boundary, displacement = fields_of(network, normalized, section.flip)
        pairs = zip(boundary.cpu().numpy(), displacement.cpu().numpy(), strict=True)
        return [{"boundary": b, "displacement": d} for b, d in pairs]

    task = engine.Task(source.load, compute=compute, key=source.size)
    names = index.select("train")
    _command.run("fields", task, names, index.classes, section, [DATASET, weights], runtime)


def rebuilt(header: Mapping[str, Any]) -> IRNet:
    """The untrained network that a weights file's header describes."""
    return IRNet(header["backbone"])


if __name__ == "__main__":
    fields()
