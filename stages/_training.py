"""What the training stages share, kept apart so that per-image stages do not load the trainer."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from pipeline.core import resume, trainer
from pipeline.core.weights import save_weights
from stages._command import CURVES, Parameters, Runtime, artifact


def train_stage(
    stage: str,
    network: nn.Module,
    samples: Dataset[Any],
    loss_fn: trainer.LossFn,
    parameters: Parameters,
    inputs: Sequence[Path],
    runtime: Runtime,
    *,
    new: Iterable[nn.Parameter],
    prepare: Callable[[nn.Module], None] | None = None,
) -> None:
    """Train `network` as section `stage` of the parameters says and write its loss log.

    Args:
        stage: name of the stage.
        network: what is trained, in place.
        samples: what it learns from.
        loss_fn: what is minimized.
        parameters: all parameters.
        inputs: files, or the folder of the dataset, on which the result depends.
        runtime: the machine.
        new: parameters without pretrained values.
        prepare: called with the network in training mode.
    """
    section, seed = getattr(parameters, stage), parameters.base.seed
    trainer.train(
        network,
        samples,
        loss_fn,
        trainer.TrainConfig(
            epochs=section.epochs, batch=section.batch, seed=seed, **section.optimizer.model_dump()
        ),
        new=new,
        stage=stage,
        fingerprint=resume.fingerprint({"section": section.model_dump(), "seed": seed}, inputs),
        runtime=runtime,
        curve=CURVES / f"{stage}.csv",
        prepare=prepare,
    )


def save_stage(stage: str, network: nn.Module, runtime: Runtime, **header: Any) -> None:
    """Write the weights of `stage`, with what rebuilds the network, and remove its checkpoints."""
    if runtime.is_main_process:
        save_weights(artifact(stage, ".safetensors"), network, stage, **header)
        resume.cleanup(runtime.work, stage)
