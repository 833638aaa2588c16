"""Stage instance: train the final instance model on the pseudo-instances.

Reads data/dataset, data/labels.h5, data/hints.h5, and for its backbone data/classifier.safetensors
or data/semantic.safetensors; writes data/instance.safetensors and data/curves/instance.csv. With
`supervision: truth` it learns from the ground truth instead, for the upper bound.
    dvc repro instance
    dvc exp run -S instance.method=sparseinst      # or maskrcnn, or none
    dvc exp run -S instance.supervision=truth instance predictions scores@predictions
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.core.artifacts import Reader
from pipeline.core.weights import load_weights, restore
from pipeline.data.augmentation import Emphasis, ShortSide
from pipeline.data.index import Index
from pipeline.data.masks import read_instances, read_semantic
from pipeline.errors import UserError
from pipeline.instances import INSTANCE_MODELS
from pipeline.instances.base import (
    InstanceCrops,
    InstanceModel,
    TrainingInstances,
    select_instances,
)
from pipeline.instances.none import NoInstances
from pipeline.labelling.hints import said
from pipeline.nets.backbones import fix_batch_norm, freeze_batch_norm, normalization
from pipeline.params.models import Instance
from stages._command import (
    DATASET,
    Parameters,
    Runtime,
    artifact,
    save_stage,
    save_untrained,
    stage,
    train_stage,
)


@stage
def instance(parameters: Parameters, runtime: Runtime) -> None:
    """Train the final instance model."""
    index, section = Index.load(DATASET), parameters.instance
    labels = Reader(artifact("labels"), "labels")
    if section.method == "none":
        nothing = NoInstances(len(index.classes))
        header = {"method": "none", "backbone": "", "classes": index.classes, "options": {}}
        save_untrained("instance", nothing, runtime, **header)
        return
    names, instances = supervision(section.supervision, index, labels, section.min_score)
    torch.manual_seed(parameters.base.seed)
    network, header = new_network(section, index.classes)
    options = getattr(section, section.method).model_dump()
    of_loss = {name: value for name, value in options.items() if name not in header["options"]}
    inputs, emphasis = [DATASET, labels.path], None
    hints, weight = Reader(artifact("hints"), "hints"), parameters.hints.weight
    if hints.names and weight > 1 and section.supervision == "labels":
        emphasis = Emphasis(partial(said, hints), weight)
        inputs.append(hints.path)
    backbone: Any = network.backbone
    if section.pretraining != "none":
        inputs.append(artifact(section.pretraining, ".safetensors"))
        start_from(section.pretraining, backbone, inputs[-1])
    backbone.freeze(section.frozen_stages)
    if section.batch_norm == "frozen":
        freeze_batch_norm(network)
    resize = ShortSide(*section.resize, section.longest, section.resize_step)
    mean, _ = normalization(section.backbone.name)
    train_stage(
        "instance",
        network,
        InstanceCrops(index, names, resize, section.crop, mean, instances, emphasis=emphasis),
        network.loss_fn(**of_loss),
        parameters,
        inputs,
        runtime,
        new=network.new_parameters(),
        prepare=fix_batch_norm,
    )
    save_stage("instance", network, runtime, **header)


def new_network(section: Instance, classes: Sequence[str]) -> tuple[InstanceModel, dict[str, Any]]:
    """Create the model of the parameters, and the header for its weights file."""
    model, backbone = INSTANCE_MODELS[section.method], section.backbone
    options = getattr(section, section.method)
    shape = {name: getattr(options, name) for name in model.OPTIONS}
    network = model(len(classes), backbone.name, backbone.weights, **shape)
    header = {
        "method": section.method,
        "backbone": backbone.name,
        "classes": classes,
        "options": shape,
        "resize": section.resize,
    }
    return network, header


def start_from(kind: str, backbone: Any, path: Path) -> None:
    """Load the weights of the `classifier` or the `semantic` model into a Backbone; raise UserError
    for another network.
    """
    tensors, header = load_weights(path, kind)
    if header["backbone"] != backbone.name:
        raise UserError(
            f"instance.pretraining: the backbone of stage {kind} is {header['backbone']}, this "
            f"model's is {backbone.name}; set instance.backbone.name to the former, or "
            f"instance.pretraining to none"
        )
    prefix, known = "backbone.body.", backbone.body.state_dict()
    own = {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
    restore(backbone.body, {name: value for name, value in own.items() if name in known}, path)


def supervision(
    kind: str, index: Index, labels: Reader, min_score: float
) -> tuple[list[str], Callable[[str], TrainingInstances]]:
    """Return the images to learn from and what gives their instances.

    kind: `labels` for pseudo-labels, `truth` for the ground truth of the images that have one.
    """
    if kind == "labels":
        return labels.names, partial(pseudo_instances, labels, min_score)
    names = [name for name in labels.names if index.has_instances(name)]
    if not names:
        raise UserError(
            "instance.supervision: truth needs instance masks, but no training image has any; "
            "use labels"
        )
    return names, partial(true_instances, index)


def pseudo_instances(labels: Reader, min_score: float, name: str) -> TrainingInstances:
    """Return the pseudo-instances of an image, weighted by their scores; those below min_score are
    ignored.
    """
    record = labels[name]
    kept = record["scores"] >= min_score
    return select_instances(
        record["instances"], record["classes"], record["scores"] * kept, record["semantic"], kept
    )


def true_instances(index: Index, name: str) -> TrainingInstances:
    """Return the ground-truth instances of an image, all of weight 1."""
    ids, classes = read_instances(index, name)
    kept = classes >= 0
    return select_instances(ids, classes, kept.astype("f4"), read_semantic(index, name), kept)


if __name__ == "__main__":
    instance()
