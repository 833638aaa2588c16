"""Stage fields: class boundary map and displacement field of every training image; of none with
`walk.affinity: features`.

Reads data/dataset, data/irnet.safetensors; writes data/fields.h5.
    dvc repro fields
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core.artifacts import Record
from pipeline.core.device import stack
from pipeline.core.engine import Task
from pipeline.data.index import Index
from stages._command import DATASET, Parameters, Runtime, artifact, run_per_image, stage

if TYPE_CHECKING:  # networks are loaded where they are used: worker processes only read images
    from pipeline.irnet.network import IRNet


@stage
def fields(parameters: Parameters, runtime: Runtime) -> None:
    """Compute class boundaries and displacements."""
    from pipeline.core.weights import load_network

    index, section = Index.load(DATASET), parameters.fields
    weights = artifact("irnet", ".safetensors")
    names, task, inputs = list[str](), Task(index.image), [DATASET, weights]
    if parameters.walk.affinity == "boundary":
        build = partial(_rebuild, section.pad)
        network = load_network(weights, "irnet", build, runtime.device)
        compute = partial(_compute, network, section.flip, runtime)
        names, task = index.select("train"), Task(index.image, compute=compute, key=index.size)
    run_per_image("fields", task, names, index.classes, section, inputs, runtime)


def _rebuild(pad: str, header: Mapping[str, Any]) -> "IRNet":
    from pipeline.irnet.network import IRNet

    return IRNet(header["backbone"], canvas=header["canvas"] if pad == "canvas" else 0)


def _compute(
    network: "IRNet",
    flip: bool,
    runtime: Runtime,
    names: Sequence[str],
    images: Sequence[np.ndarray],
) -> list[Record]:
    """Return boundaries [h,w] and displacements [2,h,w] of images of one size."""
    from pipeline.irnet.network import fields_of

    normalized = network.backbone.normalize(stack(images, runtime.device))
    with runtime.autocast():
        boundary, displacement = fields_of(network, normalized, flip)
    pairs = zip(boundary.cpu().numpy(), displacement.cpu().numpy(), strict=True)
    return [{"boundary": b, "displacement": d} for b, d in pairs]


if __name__ == "__main__":
    fields()
