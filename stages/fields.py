"""Stage fields: class boundary map and displacement field of every training picture.

Reads data/dataset, data/irnet.safetensors; writes data/fields.h5.
    dvc repro fields
"""

from collections.abc import Sequence

import numpy as np

from pipeline import mapping
from pipeline.datasets.index import Index
from pipeline.datasets.loading import Pictures, stack
from pipeline.irnet.network import IRNet, fields_of
from pipeline.store import Record
from pipeline.weights import load_weights, restore
from stages import pictures
from stages.entry import DATASET, Parameters, Runtime, artefact, stage


@stage
def fields(parameters: Parameters, runtime: Runtime) -> None:
    """Compute class boundaries and displacements."""
    index, section, weights = Index.load(DATASET), parameters.fields, artefact("irnet", ".safetensors")
    tensors, header = load_weights(weights, "irnet")
    network = IRNet(header["backbone"])
    restore(network, tensors, weights)
    network.eval().to(runtime.device)
    source = Pictures(index)

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Record]:
        normalised = network.backbone.normalise(stack(images, runtime.device))
        with runtime.autocast():
            boundary, displacement = fields_of(network, normalised, section.mirror)
        pairs = zip(boundary.cpu().numpy(), displacement.cpu().numpy(), strict=True)
        return [{"boundary": b, "displacement": d} for b, d in pairs]

    task = mapping.Task(source.load, compute=compute, key=source.size)
    names = index.select("train")
    pictures.run("fields", task, names, index.classes, section, [DATASET, weights], runtime)


if __name__ == "__main__":
    fields()
