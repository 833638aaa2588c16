"""Stage features: the coarsest features of the classifier's backbone as it was pretrained, for
`classifier.method: frozen` and `walk.affinity: features`; otherwise an artifact without images.

Reads data/dataset; writes data/features.h5 and says how much disk it takes.
    dvc repro features
    dvc exp run -S classifier.method=frozen -S classifier.backbone.name=vit_small_patch14_dinov2
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline.core.artifacts import Record
from pipeline.core.device import stack
from pipeline.core.engine import Task
from pipeline.data.index import Index
from stages._command import DATASET, Parameters, Runtime, artifact, run_per_image, stage

if TYPE_CHECKING:  # networks are loaded where they are used: most runs store no features
    from pipeline.nets.backbones import Backbone

log = logging.getLogger(__name__)
FROM_FEATURES = frozenset({"frozen"})
"""Methods of the classifier that learn from stored features."""


@stage
def features(parameters: Parameters, runtime: Runtime) -> None:
    """Store the features of the training images."""
    index, section = Index.load(DATASET), parameters.classifier
    needed = section.method in FROM_FEATURES or parameters.walk.affinity == "features"
    names, task = index.select("train") if needed else [], Task(index.image)
    if needed:
        from pipeline.nets.backbones import Backbone

        name, weights = section.backbone.name, section.backbone.weights
        network = Backbone(name, weights, output_stride=section.stride, dilated=section.dilated)
        compute = partial(_compute, network.to(runtime.device).eval(), runtime)
        task = Task(index.image, compute=compute, key=index.size)
    run_per_image("features", task, names, index.classes, section, [DATASET], runtime)
    if needed and runtime.is_main_process:
        size = artifact("features").stat().st_size / 1e6
        log.info("features: %.0f MB, %.2f MB per image", size, size / max(1, len(names)))


def _compute(
    network: "Backbone", runtime: Runtime, names: Sequence[str], images: Sequence[np.ndarray]
) -> list[Record]:
    """Return features [D,h,w] of images of one size."""
    import torch

    from pipeline.nets.backbones import micro_batches, pad_to_multiple

    normalized = network.normalize(stack(images, runtime.device))
    with torch.inference_mode(), runtime.autocast():
        parts = micro_batches(pad_to_multiple(normalized, network.stride))
        maps = torch.cat([network(part)[-1] for part in parts]).half().cpu().numpy()
    return [{"features": own, "stride": np.array([network.stride], np.int32)} for own in maps]


if __name__ == "__main__":
    features()
