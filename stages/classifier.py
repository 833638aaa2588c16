"""Stage classifier: train the multi-label classifier whose class maps locate the classes.

Reads data/dataset; writes data/classifier.safetensors and data/curves/classifier.csv.
    dvc repro classifier
    dvc exp run -S classifier.epochs=1 classifier      # the quickest look
"""

import torch

from pipeline.backbones import normalisation
from pipeline.classifiers import cam
from pipeline.datasets.index import Index
from stages.entry import DATASET, Parameters, Runtime, stage
from stages.fitting import fit, save


@stage
def classifier(parameters: Parameters, runtime: Runtime) -> None:
    """Train the classifier on the pictures' tags."""
    index, section = Index.load(DATASET), parameters.classifier
    torch.manual_seed(parameters.base.seed)
    network = cam.CamClassifier(
        len(index.classes), section.backbone.name, section.backbone.weights, section.cam.frozen_stages
    )
    mean, _ = normalisation(section.backbone.name)
    samples = cam.TaggedCrops(index, index.select("train"), section.resize, section.crop, mean)
    fit(
        "classifier",
        network,
        samples,
        cam.objective,
        parameters,
        [DATASET],
        runtime,
        new=network.head.parameters(),
        prepare=cam.prepare,
    )
    save(
        "classifier",
        network,
        runtime,
        method=section.method,
        backbone=section.backbone.name,
        classes=index.classes,
    )


if __name__ == "__main__":
    classifier()
