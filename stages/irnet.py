"""Stage irnet: learn class boundaries and displacements from the relations between seed pixels.

Reads data/dataset, data/seeds.h5; writes data/irnet.safetensors and data/curves/irnet.csv.
    dvc repro irnet
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline import mapping
from pipeline.backbones import normalisation
from pipeline.datasets.index import Index
from pipeline.datasets.loading import Pictures, stack
from pipeline.irnet.network import IRNet
from pipeline.irnet.training import SeedCrops, mean_displacements, objective, show_boundaries
from pipeline.store import Reader
from stages.entry import DATASET, Parameters, Runtime, artefact, stage
from stages.fitting import fit, save

log = logging.getLogger(__name__)


@stage
def irnet(parameters: Parameters, runtime: Runtime) -> None:
    """Train the inter-pixel relation network on the seeds."""
    index, seeds, section = Index.load(DATASET), Reader(artefact("seeds"), "seeds"), parameters.irnet
    if runtime.leads and not show_boundaries(seeds):
        log.warning(
            "%s: no picture has sure pixels of two labels, so IRNet learns no class boundary; look at the maps with "
            "`weakmask browse`, then lower seeds.foreground or raise seeds.background",
            seeds.path,
        )
    torch.manual_seed(parameters.base.seed)
    network = IRNet(section.backbone.name, section.backbone.weights)
    mean, _ = normalisation(section.backbone.name)
    samples = SeedCrops(index, seeds, section.scale, section.crop, mean)
    fit(
        "irnet",
        network,
        samples,
        objective(section.radius),
        parameters,
        [DATASET, seeds.path],
        runtime,
        new=network.displacement.parameters(),
    )
    network.mean_shift = mean_shift(network, index, seeds.names, runtime)
    save("irnet", network, runtime, backbone=section.backbone.name)


def mean_shift(network: IRNet, index: Index, names: Sequence[str], runtime: Runtime) -> Tensor:
    """The mean displacement of the pictures [2], whose shares the ranks take; each picture counts alike, none give zero."""
    source = Pictures(index)

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[Tensor]:
        """Mean displacements of pictures of one size."""
        with runtime.autocast():
            return list(mean_displacements(network, stack(images, runtime.device)))

    task = mapping.Task(source.load, compute=compute, key=source.size)
    mine = names[runtime.rank :: runtime.world]
    found = mapping.results(task, mine, stage="irnet", runtime=runtime)
    shown = {"desc": "irnet, mean displacement", "unit": "picture", "disable": not runtime.leads}
    own = dict(tqdm(found, total=len(mine), mininterval=1, **shown))
    means = everyone(own, runtime)
    shift = torch.stack([means[name] for name in names]).mean(0) if names else torch.zeros(2)
    return shift.to(network.mean_shift)


def everyone(own: dict[str, Tensor], runtime: Runtime) -> dict[str, Tensor]:
    """What all ranks have found, each for its own pictures."""
    if runtime.world == 1:
        return own
    shares: list[dict[str, Tensor]] = [{}] * runtime.world
    torch.distributed.all_gather_object(shares, own)
    return {name: value for share in shares for name, value in share.items()}


if __name__ == "__main__":
    irnet()
