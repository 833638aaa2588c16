"""Stage semantic: train the final semantic model on the pseudo-labels, or on the ground
truth for its upper bound.

Reads data/dataset, data/labels.h5; writes data/semantic.safetensors and data/curves/semantic.csv.
    dvc repro semantic
    dvc exp run -S semantic.supervision=truth semantic predictions scores@predictions
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from pipeline.core.artifacts import Reader
from pipeline.data.index import Index
from pipeline.data.masks import read_semantic
from pipeline.errors import UserError
from pipeline.nets.backbones import normalization
from pipeline.nets.deeplab import LabeledCrops, SemanticNet, segmentation_loss
from stages._command import DATASET, Parameters, Runtime, artifact, save_stage, stage, train_stage


@stage
def semantic(parameters: Parameters, runtime: Runtime) -> None:
    """Train the final semantic model."""
    index, section = Index.load(DATASET), parameters.semantic
    labels = Reader(artifact("labels"), "labels")
    names, label_map = _supervision(section.supervision, index, labels)
    torch.manual_seed(parameters.base.seed)
    network = SemanticNet(len(index.classes) + 1, section.backbone.name, section.backbone.weights)
    mean, _ = normalization(section.backbone.name)
    train_stage(
        "semantic",
        network,
        LabeledCrops(index, names, label_map, section.scale, section.crop, mean),
        segmentation_loss,
        parameters,
        [DATASET, labels.path],
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
