"""Stage semantic: train the final semantic model on the pseudo-labels, or on the ground
truth for its upper bound.

Reads data/dataset, data/labels.h5, data/hints.h5, with soft targets data/walk.h5, with a boundary
term data/segments.h5; writes data/semantic.safetensors and data/curves/semantic.csv.
    dvc repro semantic
    dvc exp run -S semantic.targets=soft
    dvc exp run -S semantic.supervision=truth semantic predictions scores@predictions
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.core.artifacts import Reader
from pipeline.data.augmentation import Emphasis, RandomScale
from pipeline.data.index import Index
from pipeline.data.masks import read_semantic
from pipeline.errors import UserError
from pipeline.labelling.hints import hint_of, said
from pipeline.labelling.pseudo_labels import class_maps
from pipeline.nets.backbones import normalization
from pipeline.nets.deeplab import LabeledCrops, SemanticNet, segmentation_loss
from pipeline.nets.soft_targets import (
    SoftCrops,
    Targets,
    from_labels,
    from_maps,
    inside_segments,
    soft_loss,
)
from pipeline.params.pseudo_labels import Labels
from stages._command import DATASET, Parameters, Runtime, artifact, save_stage, stage, train_stage

if TYPE_CHECKING:
    from pipeline.core.trainer import LossFn


@stage
def semantic(parameters: Parameters, runtime: Runtime) -> None:
    """Train the final semantic model."""
    index, section = Index.load(DATASET), parameters.semantic
    samples, loss_fn, inputs = _samples(parameters, index)
    torch.manual_seed(parameters.base.seed)
    network = SemanticNet(len(index.classes) + 1, section.backbone.name, section.backbone.weights)
    train_stage(
        "semantic",
        network,
        samples,
        loss_fn,
        parameters,
        [DATASET, *inputs],
        runtime,
        new=network.new_parameters(),
    )
    sides = [max(image.height, image.width) for _, image in index.items()]
    save_stage(
        "semantic",
        network,
        runtime,
        backbone=section.backbone.name,
        classes=index.classes,
        longest=[min(sides), max(sides)],
    )


def _samples(
    parameters: Parameters, index: Index
) -> "tuple[LabeledCrops | SoftCrops, LossFn, list[Path]]":
    """Return what is learned from, the loss, and the artifacts on which both depend."""
    section, labels = parameters.semantic, Reader(artifact("labels"), "labels")
    hints, emphasis = Reader(artifact("hints"), "hints"), None
    names, label_map = _supervision(section.supervision, index, labels)
    mean, _ = normalization(section.backbone.name)
    crops = index, names, RandomScale(*section.scale), section.crop, mean
    soft = section.targets == "soft" and section.supervision == "labels"
    inputs, inside = [labels.path], None
    if hints.names and parameters.hints.weight > 1 and section.supervision == "labels":
        emphasis = Emphasis(partial(said, hints), parameters.hints.weight)
        inputs.append(hints.path)
    if not soft and section.boundary == 0:
        return LabeledCrops(*crops, label_map, emphasis=emphasis), segmentation_loss, inputs
    targets = partial(_one_hot, label_map)
    if soft:
        walk = Reader(artifact("walk"), "walk")
        targets = partial(_walked, walk, hints, parameters.hints.trust, parameters.labels)
        inputs += [walk.path, hints.path]
    if section.boundary:
        segments = Reader(artifact("segments"), "segments")
        if not segments.names:
            raise UserError(
                "semantic.boundary: there are no segments; set segments.backend to superpixels or "
                "sam, or semantic.boundary to 0"
            )
        inside = partial(_inside, segments)
        inputs.append(segments.path)
    loss_fn = partial(soft_loss, boundary=section.boundary)
    return SoftCrops(*crops, targets, inside, emphasis=emphasis), loss_fn, inputs


def _one_hot(label_map: Callable[[str], np.ndarray], name: str) -> Targets:
    return from_labels(label_map(name))


def _walked(walk: Reader, hints: Reader, trust: float, section: Labels, name: str) -> Targets:
    maps, classes = class_maps(walk[name], section.normalize)
    if (hint := hint_of(hints, name, trust)) is not None:
        maps = hint.applied(maps, classes)
    return from_maps(maps, classes, section.background)


def _inside(segments: Reader, name: str) -> np.ndarray:
    return inside_segments(segments.array(name, "segments"))


def _supervision(
    kind: str, index: Index, labels: Reader
) -> tuple[list[str], Callable[[str], np.ndarray]]:
    """Return the images to learn from and what reads their label maps uint8 [H,W]: `labels` or,
    for those images that have it, the ground `truth`.
    """
    if kind == "labels":
        return labels.names, partial(labels.array, key="semantic")
    names = [name for name in labels.names if index.has_masks(name)]
    if not names:
        raise UserError(
            "semantic.supervision: truth needs masks, but no training image has one; use labels"
        )
    return names, partial(read_semantic, index)


if __name__ == "__main__":
    semantic()
