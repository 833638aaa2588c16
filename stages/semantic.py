"""Stage semantic: train the final semantic model on the pseudo-labels, or on the truth for its
upper bound.

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
from stages._command import DATASET, Parameters, Runtime, artifact, fit, save, stage


@stage
def semantic(parameters: Parameters, runtime: Runtime) -> None:
    """Train the final semantic model."""
    index, labels, section = (
        Index.load(DATASET),
        Reader(artifact("labels"), "labels"),
        parameters.semantic,
    )
    names, label_map = supervision(section.supervision, index, labels)
    torch.manual_seed(parameters.base.seed)
    network = SemanticNet(len(index.classes) + 1, section.backbone.name, section.backbone.weights)
    mean, _ = normalization(section.backbone.name)
    samples = LabeledCrops(index, names, label_map, section.scale, section.crop, mean)
    fit(
        "semantic",
        network,
        samples,
        segmentation_loss,
        parameters,
        [DATASET, labels.path],
        runtime,
        new=network.new_parameters(),
    )
    save("semantic", network, runtime, backbone=section.backbone.name, classes=index.classes)


def supervision(
    kind: str, index: Index, labels: Reader
) -> tuple[list[str], Callable[[str], np.ndarray]]:
    """The images to learn from and their label maps: pseudo-labels, or the truth where an image has
    it.
    """
    if kind == "labels":
        return labels.names, partial(pseudo_label, labels)
    names = [name for name in labels.names if index.has_masks(name)]
    if not names:
        raise UserError(
            "semantic.supervision: truth needs pixel masks, and no training image has any; use labels"
        )
    return names, partial(read_semantic, index)


def pseudo_label(labels: Reader, name: str) -> np.ndarray:
    """The semantic pseudo-label of an image."""
    return labels[name]["semantic"]


if __name__ == "__main__":
    semantic()
