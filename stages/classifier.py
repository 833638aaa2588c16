"""Stage classifier: train the multi-label classifier whose class maps locate the classes.

Reads data/dataset; writes data/classifier.safetensors and data/curves/classifier.csv.
    dvc repro classifier
    dvc exp run -S classifier.epochs=1 classifier      # the quickest look
"""

import torch

from pipeline import training, work
from pipeline.backbones import normalisation
from pipeline.classifiers import cam
from pipeline.datasets.index import Index
from pipeline.weights import save_weights
from stages.entry import CURVES, DATASET, Parameters, Runtime, artefact, stage


@stage
def classifier(parameters: Parameters, runtime: Runtime) -> None:
    """Train the classifier on the pictures' tags."""
    index, section = Index.load(DATASET), parameters.classifier
    torch.manual_seed(parameters.base.seed)
    network = cam.CamClassifier(
        len(index.classes), section.backbone.name, section.backbone.weights, section.cam.frozen_stages
    )
    mean, _ = normalisation(section.backbone.name)
    training.train(
        network,
        cam.TaggedCrops(index, index.select("train"), section.resize, section.crop, mean),
        cam.objective,
        training.Plan(
            epochs=section.epochs,
            batch=section.batch,
            seed=parameters.base.seed,
            **section.optimizer.model_dump(),
        ),
        new=network.head.parameters(),
        stage="classifier",
        fingerprint=work.fingerprint(
            {"section": section.model_dump(), "seed": parameters.base.seed}, [DATASET]
        ),
        runtime=runtime,
        curve=CURVES / "classifier.csv",
        prepare=cam.prepare,
    )
    if runtime.leads:
        save_weights(
            artefact("classifier", ".safetensors"),
            network,
            "classifier",
            method=section.method,
            backbone=section.backbone.name,
            classes=index.classes,
        )
        work.discard(runtime.work, "classifier")


if __name__ == "__main__":
    classifier()
