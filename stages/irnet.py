"""Stage irnet: learn class boundaries and displacements from the relations between seed pixels.

Reads data/dataset, data/seeds.h5; writes data/irnet.safetensors and data/curves/irnet.csv.
    dvc repro irnet
"""

import logging
from functools import partial

import torch

from pipeline.core.artifacts import Reader
from pipeline.data.index import Index
from pipeline.data.loading import ImageSource
from pipeline.irnet.network import IRNet
from pipeline.irnet.training import SeedCrops, mean_shift, show_boundaries, training_loss
from pipeline.nets.backbones import normalization
from stages._command import DATASET, Parameters, Runtime, artifact, fit, save, stage

log = logging.getLogger(__name__)


@stage
def irnet(parameters: Parameters, runtime: Runtime) -> None:
    """Train the inter-pixel relation network on the seeds."""
    index, seeds, section = (
        Index.load(DATASET),
        Reader(artifact("seeds"), "seeds"),
        parameters.irnet,
    )
    if runtime.is_main_process and not show_boundaries(seeds):
        log.warning(
            "%s: no image has sure pixels of two labels, so IRNet learns no class boundary; look at the maps with "
            "`weakmask browse`, then lower seeds.foreground or raise seeds.background",
            seeds.path,
        )
    torch.manual_seed(parameters.base.seed)
    network = IRNet(section.backbone.name, section.backbone.weights)
    mean, _ = normalization(section.backbone.name)
    samples = SeedCrops(index, seeds, section.scale, section.crop, mean)
    fit(
        "irnet",
        network,
        samples,
        partial(training_loss, radius=section.radius),
        parameters,
        [DATASET, seeds.path],
        runtime,
        new=network.displacement.parameters(),
    )
    network.mean_shift = mean_shift(network, ImageSource(index), seeds.names, runtime)
    save("irnet", network, runtime, backbone=section.backbone.name)


if __name__ == "__main__":
    irnet()
