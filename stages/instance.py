"""Stage instance: train the final instance model on the pseudo-instances, or on the truth for its upper bound.

Reads data/dataset, data/labels.h5; writes data/instance.safetensors and data/curves/instance.csv.
    dvc repro instance
    dvc exp run -S instance.method=maskrcnn
    dvc exp run -S instance.supervision=truth instance predictions scores@predictions
"""

from collections.abc import Callable
from functools import partial

import torch

from pipeline.augmentation import ShortSide
from pipeline.backbones import fix_batch_norm, normalisation
from pipeline.datasets.index import Index
from pipeline.datasets.masks import read_instances, read_semantic
from pipeline.errors import UserError
from pipeline.instances.methods import room
from pipeline.instances.samples import InstanceCrops, Instances, among
from pipeline.store import Reader
from stages.entry import DATASET, Parameters, Runtime, artefact, stage
from stages.fitting import fit, save


@stage
def instance(parameters: Parameters, runtime: Runtime) -> None:
    """Train the final instance model."""
    index, labels, section = Index.load(DATASET), Reader(artefact("labels"), "labels"), parameters.instance
    names, instances = supervision(section.supervision, index, labels, section.min_score)
    torch.manual_seed(parameters.base.seed)
    kind, training = room(section.method, "network").Network, room(section.method, "training")
    options = getattr(section, section.method).model_dump()
    shape = {name: options.pop(name) for name in kind.OPTIONS}
    network = kind(len(index.classes), section.backbone.name, section.backbone.weights, **shape)
    mean, _ = normalisation(section.backbone.name)
    fit(
        "instance",
        network,
        InstanceCrops(index, names, instances, ShortSide(*section.resize), section.crop, mean),
        training.objective(**options),
        parameters,
        [DATASET, labels.path],
        runtime,
        new=network.new_parameters(),
        prepare=fix_batch_norm,
    )
    save(
        "instance",
        network,
        runtime,
        method=section.method,
        backbone=section.backbone.name,
        classes=index.classes,
        options=shape,
    )


def supervision(
    kind: str, index: Index, labels: Reader, min_score: float
) -> tuple[list[str], Callable[[str], Instances]]:
    """The pictures to learn from and their instances: pseudo-labels, or the truth where a picture has it."""
    if kind == "labels":
        return labels.names, partial(pseudo_instances, labels, min_score)
    names = [name for name in labels.names if index.has_instances(name)]
    if not names:
        raise UserError(
            "instance.supervision: truth needs instance masks, and no training picture has any; use labels"
        )
    return names, partial(true_instances, index)


def pseudo_instances(labels: Reader, min_score: float, name: str) -> Instances:
    """The pseudo-instances of a picture, weighted by their scores; those below min_score do not count as background either."""
    record = labels[name]
    kept = record["scores"] >= min_score
    return among(record["instances"], record["classes"], record["scores"] * kept, record["semantic"], kept)


def true_instances(index: Index, name: str) -> Instances:
    """The instances of a picture's masks, all of weight 1."""
    ids, classes = read_instances(index, name)
    kept = classes >= 0
    return among(ids, classes, kept.astype("f4"), read_semantic(index, name), kept)


if __name__ == "__main__":
    instance()
