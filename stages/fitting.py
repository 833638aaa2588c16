"""How every training stage runs: its name says which section, curve and weights file are its own."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pipeline import training, work
from pipeline.params import Parameters
from pipeline.runtime import Runtime
from pipeline.weights import save_weights
from stages.entry import CURVES, artefact


def fit(
    stage: str,
    network: nn.Module,
    samples: training.Samples,
    objective: training.Objective,
    parameters: Parameters,
    inputs: Sequence[Path],
    runtime: Runtime,
    *,
    new: Iterable[nn.Parameter],
    prepare: Callable[[nn.Module], None] = lambda network: None,
) -> None:
    """Train `network` as section `stage` of the parameters says and write its curve.

    inputs: files, or the dataset's folder, that the result follows from; new: parameters without pretrained values; prepare: called
    when training begins.
    """
    section, seed = getattr(parameters, stage), parameters.base.seed
    training.train(
        network,
        samples,
        objective,
        training.Plan(
            epochs=section.epochs, batch=section.batch, seed=seed, **section.optimizer.model_dump()
        ),
        new=new,
        stage=stage,
        fingerprint=work.fingerprint({"section": section.model_dump(), "seed": seed}, inputs),
        runtime=runtime,
        curve=CURVES / f"{stage}.csv",
        prepare=prepare,
    )


def save(stage: str, network: nn.Module, runtime: Runtime, **header: Any) -> None:
    """Write the weights of `stage` with what is needed to rebuild the network, and drop its checkpoints."""
    if runtime.leads:
        save_weights(artefact(stage, ".safetensors"), network, stage, **header)
        work.discard(runtime.work, stage)
