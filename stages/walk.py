"""Stage walk: split the CAMs by instance and spread them by the random walk, before any threshold.

Reads data/cams.h5, data/fields.h5, data/features.h5, data/hints.h5; writes data/walk.h5.
    dvc repro walk
    dvc exp run -S walk.beta=8
    dvc exp run -S walk.affinity=features      # without IRNet
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from pipeline.core.artifacts import Reader, Record
from pipeline.core.engine import Task
from pipeline.irnet.instances import walk_input, walk_instances
from pipeline.irnet.similarity import STRIDE, similarity_input, walk_by_similarity
from pipeline.labelling.hints import hint_of
from pipeline.params.pseudo_labels import Walk
from stages._command import Parameters, Runtime, artifact, run_per_image, stage

BATCH_ON_GPU = 256
"""Images per batch on a GPU, where hundreds take about as long as one."""


@stage
def walk(parameters: Parameters, runtime: Runtime) -> None:
    """Spread the CAMs of each instance by the random walk."""
    section = parameters.walk
    source, collect, spread, options = _affinity(section)
    cams, relations = Reader(artifact("cams"), "cams"), Reader(artifact(source), source)
    hints, trust = Reader(artifact("hints"), "hints"), parameters.hints
    load = partial(_load, cams, relations, hints, trust.trust, collect)
    if runtime.device.type == "cpu":  # in the workers, each image on its own
        task = Task(load, partial(_walk_one, spread, options))
    else:
        compute = partial(_walk_batch, spread, options, runtime.device)
        task = Task(load, compute=compute, at_once=BATCH_ON_GPU)
    names = [name for name in cams.names if name in relations]
    inputs = [cams.path, relations.path, hints.path]
    run_per_image("walk", task, names, cams.classes, section, inputs, runtime, trust)


def _affinity(section: Walk) -> tuple[str, Callable[..., Any], Callable[..., Any], dict[str, Any]]:
    """Return the artifact that affinities come from, what collects an image's input from its
    records, what walks a batch of inputs, and that one's options.
    """
    if section.affinity == "features":
        options = section.features.model_dump() | {"background": section.background}
        return "features", similarity_input, walk_by_similarity, options
    collect = partial(walk_input, centroid_radius=section.centroid_radius)
    options = section.model_dump(include={"radius", "beta", "steps", "iterations", "background"})
    return "fields", collect, walk_instances, options


def _load(
    cams: Reader,
    relations: Reader,
    hints: Reader,
    trust: float,
    collect: Callable[..., Any],
    name: str,
) -> Any:
    record = cams[name]
    if (hint := hint_of(hints, name, trust)) is not None:
        maps = hint.applied(record["cams"], record["labels"], STRIDE).astype(np.float16)
        record = {**record, "cams": maps}
    return collect(record, relations[name])


def _walk_batch(
    spread: Callable[..., list[Record]],
    options: dict[str, Any],
    device: torch.device,
    names: Sequence[str],
    batch: Sequence[Any],
) -> list[Record]:
    return spread(batch, device, **options)


def _walk_one(
    spread: Callable[..., list[Record]], options: dict[str, Any], name: str, loaded: Any
) -> Record:
    (record,) = spread([loaded], torch.device("cpu"), **options)
    return record


if __name__ == "__main__":
    walk()
