"""Stage irnet: learn class boundaries and displacements from the relations between seed pixels.

Reads data/dataset, data/seeds.h5; writes data/irnet.safetensors and data/curves/irnet.csv.
    dvc repro irnet
"""

import torch

from pipeline import training, work
from pipeline.backbones import normalisation
from pipeline.datasets.index import Index
from pipeline.datasets.loading import stack
from pipeline.irnet.network import IRNet
from pipeline.irnet.training import SeedCrops, mean_displacement, objective
from pipeline.store import Reader
from pipeline.weights import save_weights
from stages.entry import CURVES, DATASET, Parameters, Runtime, artefact, stage


@stage
def irnet(parameters: Parameters, runtime: Runtime) -> None:
    """Train the inter-pixel relation network on the seeds."""
    index, seeds, section = Index.load(DATASET), Reader(artefact("seeds"), "seeds"), parameters.irnet
    torch.manual_seed(parameters.base.seed)
    network = IRNet(section.backbone.name, section.backbone.weights)
    mean, _ = normalisation(section.backbone.name)
    training.train(
        network,
        SeedCrops(index, seeds, section.scale, section.crop, mean),
        objective(section.radius),
        training.Plan(
            epochs=section.epochs,
            batch=section.batch,
            seed=parameters.base.seed,
            **section.optimizer.model_dump(),
        ),
        new=network.displacement.parameters(),
        stage="irnet",
        fingerprint=work.fingerprint(
            {"section": section.model_dump(), "seed": parameters.base.seed}, [DATASET, seeds.path]
        ),
        runtime=runtime,
        curve=CURVES / "irnet.csv",
    )

    if runtime.leads:
        pictures = (stack([index.image(name)], runtime.device) for name in seeds.names)
        with runtime.autocast():
            network.mean_shift = mean_displacement(network, pictures)
        save_weights(artefact("irnet", ".safetensors"), network, "irnet", backbone=section.backbone.name)
        work.discard(runtime.work, "irnet")


if __name__ == "__main__":
    irnet()
