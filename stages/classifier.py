"""Stage classifier: train the multi-label classifier whose class maps locate the classes.

Reads data/dataset, data/guidance.h5; writes data/classifier.safetensors and data/curves/classifier.csv.
    dvc repro classifier
    dvc exp run -S classifier.method=puzzlecam
    dvc exp run -S classifier.epochs=1 classifier      # the quickest look
"""

import torch

from pipeline.backbones import fix_batch_norm, normalisation
from pipeline.classifiers.classifier import room
from pipeline.classifiers.samples import Material
from pipeline.datasets.index import Index
from pipeline.segmenters.prompters import guidance
from stages.entry import DATASET, Parameters, Runtime, artefact, stage
from stages.fitting import fit, save


@stage
def classifier(parameters: Parameters, runtime: Runtime) -> None:
    """Train the classifier on the pictures' tags."""
    index, section, segments = Index.load(DATASET), parameters.classifier, artefact("guidance")
    divided = parameters.segments
    torch.manual_seed(parameters.base.seed)
    kind, training = room(section.method, "network").Network, room(section.method, "training")
    options = getattr(section, section.method).model_dump()
    shape = {name: options.pop(name) for name in kind.OPTIONS}
    network = kind(len(index.classes), section.backbone.name, section.backbone.weights, **shape)
    network.backbone.freeze(section.frozen_stages)
    mean, _ = normalisation(section.backbone.name)
    material = Material(
        index,
        index.select("train"),
        section.resize,
        section.crop,
        mean,
        guidance(
            segments,
            backend=divided.backend,
            embeddings=divided.embeddings,
            model=divided.sam.model,
            checkpoint=divided.checkpoint,
            sha256=divided.sha256,
            device=runtime.device,
            precision=runtime.precision,
        ),
    )
    fit(
        "classifier",
        network,
        training.samples(material),
        training.objective(material, **options),
        parameters,
        [DATASET, segments],
        runtime,
        new=network.new_parameters(),
        prepare=fix_batch_norm if section.batch_norm == "fixed" else lambda network: None,
    )
    save(
        "classifier",
        network,
        runtime,
        method=section.method,
        backbone=section.backbone.name,
        classes=index.classes,
        options=shape,
    )


if __name__ == "__main__":
    classifier()
