"""Stage classifier: train the multi-label classifier whose class maps locate the classes.

Reads data/dataset, data/guidance.h5; writes data/classifier.safetensors and data/curves/classifier.csv.
    dvc repro classifier
    dvc exp run -S classifier.method=puzzlecam
    dvc exp run -S classifier.epochs=1 classifier      # the quickest look
"""

import torch

from pipeline.backbones import fix_batch_norm, normalisation
from pipeline.classifiers.samples import Material
from pipeline.datasets.index import Index
from pipeline.methods import CLASSIFIERS, build
from pipeline.segmenters.prompters import guidance
from stages.entry import DATASET, Parameters, Runtime, artefact, stage
from stages.fitting import fit, save


@stage
def classifier(parameters: Parameters, runtime: Runtime) -> None:
    """Train the classifier on the pictures' tags."""
    index, section, segments = Index.load(DATASET), parameters.classifier, artefact("guidance")
    divided = parameters.segments
    torch.manual_seed(parameters.base.seed)
    options = getattr(section, section.method).model_dump()
    method = build(
        CLASSIFIERS, section.method, index.classes, section.backbone.name, section.backbone.weights, options
    )
    method.network.backbone.freeze(section.frozen_stages)
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
        method.network,
        method.training.samples(material),
        method.training.objective(material, **method.options),
        parameters,
        [DATASET, segments],
        runtime,
        new=method.network.new_parameters(),
        prepare=fix_batch_norm if section.batch_norm == "fixed" else lambda network: None,
    )
    save("classifier", method.network, runtime, **method.header)


if __name__ == "__main__":
    classifier()
