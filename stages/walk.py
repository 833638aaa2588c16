"""Stage walk: split the CAMs by instance and spread them by the random walk, before any threshold.

Reads data/cams.h5, data/fields.h5; writes data/walk.h5.
    dvc repro walk
    dvc exp run -S walk.beta=8
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from pipeline.core.artifacts import Reader, Record
from pipeline.core.engine import Task
from pipeline.irnet.instances import WalkInput, walk_input, walk_instances
from stages._command import Parameters, Runtime, artifact, run_per_image, stage

BATCH_ON_GPU = 256
"""Images per batch on a GPU, where hundreds take about as long as one."""


@stage
def walk(parameters: Parameters, runtime: Runtime) -> None:
    """Spread the CAMs of each instance by the random walk."""
    section = parameters.walk
    cams, fields = Reader(artifact("cams"), "cams"), Reader(artifact("fields"), "fields")
    options = section.model_dump(exclude={"centroid_radius"})
    load = partial(_load, cams, fields, section.centroid_radius)
    if runtime.device.type == "cpu":  # in the workers, each image on its own
        task = Task(load, partial(_walk_one, options))
    else:
        compute = partial(_walk_batch, options, runtime.device)
        task = Task(load, compute=compute, at_once=BATCH_ON_GPU)
    names = [name for name in cams.names if name in fields]
    inputs = [cams.path, fields.path]
    run_per_image("walk", task, names, cams.classes, section, inputs, runtime)


def _load(cams: Reader, fields: Reader, centroid_radius: float, name: str) -> WalkInput:
    return walk_input(cams[name], fields[name], centroid_radius)


def _walk_batch(
    options: dict[str, Any], device: torch.device, names: Sequence[str], batch: Sequence[WalkInput]
) -> list[Record]:
    return walk_instances(batch, device, **options)


def _walk_one(options: dict[str, Any], name: str, loaded: WalkInput) -> Record:
    (record,) = walk_instances([loaded], torch.device("cpu"), **options)
    return record


if __name__ == "__main__":
    walk()
