"""Stage instance: train the final instance model on the pseudo-instances, or on the truth for its
upper bound.

Reads data/dataset, data/labels.h5, and data/classifier.safetensors for its backbone; writes
data/instance.safetensors and data/curves/instance.csv.
    dvc repro instance
    dvc exp run -S instance.method=sparseinst      # or maskrcnn, or none
    dvc exp run -S instance.supervision=truth instance predictions scores@predictions
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from pipeline.core.artifacts import Reader
from pipeline.core.resume import write_atomically
from pipeline.core.weights import load_weights, restore
from pipeline.data.augmentation import ShortSide
from pipeline.data.index import Index
from pipeline.data.masks import read_instances, read_semantic
from pipeline.errors import UserError
from pipeline.instances.base import InstanceCrops, Instances, select_instances
from pipeline.methods import INSTANCES, build
from pipeline.nets.backbones import Backbone, fix_batch_norm, normalization
from stages._command import CURVES, DATASET, Parameters, Runtime, artifact, stage
from stages._training import save_stage, train_stage


@stage
def instance(parameters: Parameters, runtime: Runtime) -> None:
    """Train the final instance model."""
    index, labels, section = (
        Index.load(DATASET),
        Reader(artifact("labels"), "labels"),
        parameters.instance,
    )
    if section.method == "none":
        leave_out(index, runtime)
        return
    names, instances = supervision(section.supervision, index, labels, section.min_score)
    torch.manual_seed(parameters.base.seed)
    options = getattr(section, section.method).model_dump()
    method = build(
        INSTANCES,
        section.method,
        index.classes,
        section.backbone.name,
        section.backbone.weights,
        options,
    )
    inputs = [DATASET, labels.path]
    if section.pretraining == "classifier":
        inputs.append(artifact("classifier", ".safetensors"))
        start_from_classifier(method.network.backbone, inputs[-1])
    mean, _ = normalization(section.backbone.name)
    train_stage(
        "instance",
        method.network,
        InstanceCrops(index, names, instances, ShortSide(*section.resize), section.crop, mean),
        method.training.objective(**method.options),
        parameters,
        inputs,
        runtime,
        new=method.network.new_parameters(),
        prepare=fix_batch_norm,
    )
    save_stage("instance", method.network, runtime, **method.header, resize=section.resize)


def leave_out(index: Index, runtime: Runtime) -> None:
    """Write weights and a curve of nothing, by which stage predictions sees that there is no
    instance model.
    """
    if runtime.is_main_process:
        write_atomically(CURVES / "instance.csv", b"step,loss\n")
    save_stage(
        "instance",
        nn.Module(),
        runtime,
        method="none",
        backbone="",
        classes=index.classes,
        options={},
    )


def start_from_classifier(backbone: Backbone, path: Path) -> None:
    """Give a backbone the classifier's weights; raises UserError if that one's is another network."""
    tensors, header = load_weights(path, "classifier")
    if header["backbone"] != backbone.name:
        raise UserError(
            f"instance.pretraining: the classifier's backbone is {header['backbone']}, this model's {backbone.name}; "
            f"set instance.backbone.name to the former, or instance.pretraining to none"
        )
    prefix = "backbone.body."
    known = backbone.body.state_dict()
    own = {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
    restore(backbone.body, {name: value for name, value in own.items() if name in known}, path)


def supervision(
    kind: str, index: Index, labels: Reader, min_score: float
) -> tuple[list[str], Callable[[str], Instances]]:
    """The images to learn from and their instances: pseudo-labels, or the truth where an image has
    it.
    """
    if kind == "labels":
        return labels.names, partial(pseudo_instances, labels, min_score)
    names = [name for name in labels.names if index.has_instances(name)]
    if not names:
        raise UserError(
            "instance.supervision: truth needs instance masks, and no training image has any; use labels"
        )
    return names, partial(true_instances, index)


def pseudo_instances(labels: Reader, min_score: float, name: str) -> Instances:
    """The pseudo-instances of an image, weighted by their scores; those below min_score do not
    count as background either.
    """
    record = labels[name]
    kept = record["scores"] >= min_score
    return select_instances(
        record["instances"], record["classes"], record["scores"] * kept, record["semantic"], kept
    )


def true_instances(index: Index, name: str) -> Instances:
    """The instances of an image's masks, all of weight 1."""
    ids, classes = read_instances(index, name)
    kept = classes >= 0
    return select_instances(ids, classes, kept.astype("f4"), read_semantic(index, name), kept)


if __name__ == "__main__":
    instance()
