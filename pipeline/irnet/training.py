"""Training of IRNet (IRNet, section 4.5): crops with seed maps, the loss of a batch, and the mean
displacement that is subtracted afterwards (the authors' code).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.core import engine
from pipeline.core.artifacts import IGNORE, Reader
from pipeline.core.device import Runtime, stack
from pipeline.core.trainer import TrainState
from pipeline.data.augmentation import Crops
from pipeline.data.index import Index
from pipeline.irnet.losses import pair_losses, total_loss
from pipeline.irnet.network import STRIDE, IRNet
from pipeline.nets.backbones import micro_batches


@dataclass(eq=False)
class SeedCrops(Crops):
    """Training samples (crop uint8 [3,S,S], label map uint8 [h,w] on the stride-4 grid), augmented
    again at each access; 255 is ignored.

    Attributes:
        seeds: seeds.h5, with all images.
    """

    seeds: Reader

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        name = self.names[number]
        image, labels, _ = self.augmented(name, self.seeds[name]["seeds"][None])
        # the central pixel of each cell; the last cell may be cut short
        centers = [
            torch.arange(0, side, STRIDE).add(STRIDE // 2).clamp(max=side - 1)
            for side in labels.shape[1:]
        ]
        return image, labels[0][centers[0][:, None], centers[1]]


def show_boundaries(seeds: Reader) -> bool:
    """Return whether any image has confident pixels of two labels; without one there is no pair of
    pixels across a class boundary.
    """
    maps = (seeds[name]["seeds"] for name in seeds.names)
    return any(len(set(np.unique(labels)) - {IGNORE}) > 1 for labels in maps)


def training_loss(
    network: nn.Module, batch: tuple[Tensor, Tensor], step: TrainState, *, radius: int
) -> Mapping[str, Tensor]:
    """Return `loss`, half the sum, and the four pair losses of images [B,3,S,S] and labels [B,h,w]
    on the stride-4 grid; the pair counts that normalize them span all ranks.
    """
    images, labels = batch
    logits, displacement = network(images)
    terms = pair_losses(logits, displacement, labels, radius, step.ranks.mean)
    return {"loss": total_loss(terms), **terms}


@torch.inference_mode()
def mean_displacements(network: IRNet, images: Tensor) -> Tensor:
    """Return the spatial mean of D, before any shift, of images [B,3,H,W] in 0..255, their canvas
    included: float64 [B,2] in cells.
    """
    inputs = micro_batches(network.on_canvas(network.backbone.normalize(images)))
    return torch.cat([network.unshifted(part)[1].double().mean((2, 3)) for part in inputs]).cpu()


def mean_shift(network: IRNet, index: Index, names: Sequence[str], runtime: Runtime) -> Tensor:
    """Return the mean of the mean displacements of the images `names`, each counting equally:
    float32 [2] (y, x) in cells, zero without images.

    Inference subtracts it, so that the average displacement is zero and that of background, trained
    to be constant, is close to zero. Ranks share the images; the result does not depend on their
    number. Raises ImageError.
    """
    row = {name: number for number, name in enumerate(names)}
    mine = names[runtime.rank :: runtime.world_size]

    def compute(names: Sequence[str], images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the mean displacements of images of one size."""
        with runtime.autocast():
            return list(mean_displacements(network, stack(images, runtime.device)).numpy())

    task = engine.Task(index.image, compute=compute, key=index.size)
    found = engine.results(task, mine, stage="irnet", runtime=runtime)
    means = torch.zeros(len(names), 2, dtype=torch.float64)
    for name, mean in tqdm(
        found,
        desc="irnet, mean displacement",
        total=len(mine),
        unit="image",
        disable=not runtime.is_main_process,
        mininterval=1,
    ):
        means[row[name]] = torch.from_numpy(mean)
    if runtime.world_size > 1:  # all ranks but one hold zeros for an image
        everywhere = means.to(runtime.device)
        torch.distributed.all_reduce(everywhere)
        means = everywhere.cpu()
    return means.sum(0).div(max(1, len(names))).to(network.mean_shift)
