"""Stage irnet: learn class boundaries and displacements from the relations between seed pixels;
nothing with `walk.affinity: features`.

Reads data/dataset, data/seeds.h5; writes data/irnet.safetensors and data/curves/irnet.csv.
    dvc repro irnet
"""

import logging
from functools import partial
from typing import Any

import torch

from pipeline.core.artifacts import Reader
from pipeline.data.augmentation import RandomScale
from pipeline.data.index import Index
from pipeline.irnet.network import IRNet
from pipeline.irnet.training import SeedCrops, mean_shift, show_boundaries, training_loss
from pipeline.nets.backbones import normalization
from pipeline.params.pseudo_labels import Irnet
from stages._command import (
    DATASET,
    Parameters,
    Runtime,
    artifact,
    save_stage,
    save_untrained,
    stage,
    train_stage,
)

log = logging.getLogger(__name__)


@stage
def irnet(parameters: Parameters, runtime: Runtime) -> None:
    """Train the inter-pixel relation network on the seeds."""
    if parameters.walk.affinity == "features":
        save_untrained("irnet", torch.nn.Module(), runtime, backbone="", canvas=0)
        return
    index, section = Index.load(DATASET), parameters.irnet
    seeds = Reader(artifact("seeds"), "seeds")
    if runtime.is_main_process and not show_boundaries(seeds):
        log.warning(
            "irnet: %s: no image has confident pixels of two labels, so IRNet learns no class "
            "boundary; look at the maps with `weakmask browse`, then lower seeds.foreground or "
            "raise seeds.background",
            seeds.path,
        )
    torch.manual_seed(parameters.base.seed)
    network, header = new_network(section)
    mean, _ = normalization(section.backbone.name)
    train_stage(
        "irnet",
        network,
        SeedCrops(index, seeds.names, RandomScale(*section.scale), section.crop, mean, seeds),
        partial(training_loss, radius=section.radius),
        parameters,
        [DATASET, seeds.path],
        runtime,
        new=network.displacement.parameters(),
    )
    # padded as stage fields will pad them
    network.canvas = section.crop if parameters.fields.pad == "canvas" else 0
    network.mean_shift = mean_shift(network, index, seeds.names, runtime)
    save_stage("irnet", network, runtime, **header)


def new_network(section: Irnet) -> tuple[IRNet, dict[str, Any]]:
    """Create the network of the parameters, and the header for its weights file."""
    name, weights = section.backbone.name, section.backbone.weights
    return IRNet(name, weights), {"backbone": name, "canvas": section.crop}


if __name__ == "__main__":
    irnet()
