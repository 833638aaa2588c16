"""A training step of Puzzle-CAM, forward, losses, backward and update, against one of the plain
classifier.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.measure import Benchmark
from pipeline.classifiers import CLASSIFIERS
from pipeline.classifiers.base import TrainingData
from pipeline.core.distributed import DistributedContext
from pipeline.core.trainer import LossFn, TrainState
from pipeline.data.index import Index
from pipeline.nets.backbones import fix_batch_norm

IMAGES, CROP, CLASSES = 16, 256, 20
MATERIAL = TrainingData(Index((), [], Path(), Path(), {}), [], (CROP, CROP), CROP, (0.5, 0.5, 0.5))


def ours() -> Callable[[], object]:
    return training_step(
        "puzzlecam", CLASSIFIERS["puzzlecam"].loss_fn(MATERIAL, (2, 2), 4.0, 0.5, "present")
    )


def reference() -> Callable[[], object]:
    return training_step("cam", CLASSIFIERS["cam"].loss_fn(MATERIAL))


def training_step(method: str, objective: LossFn) -> Callable[[], object]:
    """Return one optimizer step of a method halfway through its training, on a batch that stays the
    same.
    """
    torch.manual_seed(0)
    network = CLASSIFIERS[method](CLASSES, "tf_efficientnet_lite0").train()
    network.backbone.freeze(2)
    fix_batch_norm(network)
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, 5e-4)
    images = torch.randint(0, 256, (IMAGES, 3, CROP, CROP), dtype=torch.uint8)
    targets = (torch.rand(IMAGES, CLASSES) < 0.1).float()
    now = TrainState(DistributedContext(), 0.5, 0.0)

    def call() -> None:
        loss = objective(network, (images, targets), now)["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return call


BENCHMARKS = (
    Benchmark(
        "training step of Puzzle-CAM",
        f"{IMAGES} crops {CROP}x{CROP}, EfficientNet-Lite0, 2x2 tiles",
        ours,
        reference,
        "step of the plain classifier, same run",
    ),
)
