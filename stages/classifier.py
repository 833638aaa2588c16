"""Stage classifier: train the multi-label classifier whose class maps locate the classes.

Reads data/dataset, data/guidance.h5, data/features.h5; writes data/classifier.safetensors and
data/curves/classifier.csv.
    dvc repro classifier
    dvc exp run -S classifier.method=puzzlecam
    dvc exp run -S classifier.epochs=1 classifier      # a quick look
"""

from collections.abc import Sequence
from typing import Any

import torch

from pipeline.classifiers import new_classifier
from pipeline.classifiers.base import Classifier, TrainingData
from pipeline.core.artifacts import Reader
from pipeline.data.augmentation import color_changes
from pipeline.data.index import Index
from pipeline.nets.backbones import Backbone, fix_batch_norm, freeze_batch_norm, normalization
from pipeline.params.data import Segments
from pipeline.params.pseudo_labels import Classifier as ClassifierSection
from pipeline.segmenters import load_prompters
from pipeline.segmenters.prompting import PromptableSegments
from stages._command import DATASET, Parameters, Runtime, artifact, save_stage, stage, train_stage


@stage
def classifier(parameters: Parameters, runtime: Runtime) -> None:
    """Train the classifier on the tags of the training images."""
    index, section = Index.load(DATASET), parameters.classifier
    torch.manual_seed(parameters.base.seed)
    network, header = new_network(section, index.classes)
    network.backbone.freeze(section.frozen_stages)
    if section.batch_norm == "frozen":
        freeze_batch_norm(network)
    mean, _ = normalization(section.backbone.name)
    names = index.select("train")
    segments = promptable_segments(parameters.segments, runtime)
    colors = color_changes(**section.color.model_dump())
    features = Reader(artifact("features"), "features")
    data = TrainingData(
        index, names, section.resize, section.crop, mean, segments, colors, features
    )
    options = getattr(section, section.method).model_dump()
    of_loss = {name: value for name, value in options.items() if name not in header["options"]}
    train_stage(
        "classifier",
        network,
        network.dataset(data),
        network.loss_fn(data, **of_loss),
        parameters,
        [DATASET, artifact("guidance"), features.path],
        runtime,
        new=network.new_parameters(),
        prepare=fix_batch_norm if section.batch_norm != "learned" else None,
    )
    save_stage("classifier", network, runtime, **header)


def new_network(
    section: ClassifierSection, classes: Sequence[str]
) -> tuple[Classifier, dict[str, Any]]:
    """Create the network of the parameters, and the header for its weights file."""
    name, weights = section.backbone.name, section.backbone.weights
    backbone = Backbone(name, weights, output_stride=section.stride, dilated=section.dilated)
    options = getattr(section, section.method).model_dump()
    return new_classifier(section.method, classes, backbone, options)


def promptable_segments(section: Segments, runtime: Runtime) -> PromptableSegments | None:
    """Open the segments that stage guidance passed on, with the prompters of the backend that wrote
    them if it stored embeddings; None if there are no segments.
    """
    segments = Reader(artifact("guidance"), "segments")
    if not segments.names:
        return None
    prompters = load_prompters(section, runtime) if section.embeddings else {}
    return PromptableSegments(segments, prompters)


if __name__ == "__main__":
    classifier()
