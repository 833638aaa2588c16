"""Stage classifier: train the multi-label classifier whose class maps locate the classes.

Reads data/dataset, data/guidance.h5; writes data/classifier.safetensors and
data/curves/classifier.csv.
    dvc repro classifier
    dvc exp run -S classifier.method=puzzlecam
    dvc exp run -S classifier.epochs=1 classifier      # the quickest look
"""

from pathlib import Path

import torch

from pipeline.classifiers.base import TrainingData
from pipeline.core.artifacts import Reader
from pipeline.data.index import Index
from pipeline.methods import CLASSIFIERS, build
from pipeline.nets.backbones import fix_batch_norm, normalization
from pipeline.segmenters.prompting import Guidance
from pipeline.segmenters.sam import SamPrompter, load_sam
from pipeline.segmenters.superpixels import GrowingPrompter
from stages._command import DATASET, Parameters, Runtime, artifact, stage
from stages._training import save_stage, train_stage


@stage
def classifier(parameters: Parameters, runtime: Runtime) -> None:
    """Train the classifier on the images' tags."""
    index, section, segments = Index.load(DATASET), parameters.classifier, artifact("guidance")
    divided = parameters.segments
    torch.manual_seed(parameters.base.seed)
    options = getattr(section, section.method).model_dump()
    method = build(
        CLASSIFIERS,
        section.method,
        index.classes,
        section.backbone.name,
        section.backbone.weights,
        options,
    )
    method.network.backbone.freeze(section.frozen_stages)
    mean, _ = normalization(section.backbone.name)
    material = TrainingData(
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
    train_stage(
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
    save_stage("classifier", method.network, runtime, **method.header)


def guidance(
    path: Path,
    *,
    backend: str,
    embeddings: bool,
    model: str,
    checkpoint: str,
    sha256: str,
    device: torch.device,
    precision: torch.dtype,
) -> Guidance | None:
    """The segments of a file that `backend` wrote, with its prompter if it stored embeddings; None
    for a file without images.

    model, checkpoint, sha256: the weights of Segment Anything; device, precision: where and how it
    decodes.
    """
    segments = Reader(path, "segments")
    if not segments.names:
        return None
    if not embeddings:
        return Guidance(segments, None)
    if backend == "superpixels":
        return Guidance(segments, GrowingPrompter())
    network = load_sam(model, checkpoint, sha256, device)
    return Guidance(segments, SamPrompter(network, precision=precision))


if __name__ == "__main__":
    classifier()
