"""The random walk of stages labels and scores: on a GPU many pictures at once, on a CPU one in each worker process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline import mapping
from pipeline.labels import AT_ONCE, Evidence, Walked, evidence, walk_instances
from pipeline.params import Parameters
from pipeline.runtime import Runtime
from pipeline.store import Reader, Record

Finish = Callable[[str, Walked], Record]
"""What is made of a picture's walk, given its id; runs in worker processes, so it must be picklable."""


@dataclass(frozen=True, slots=True)
class Walking:
    """What the worker processes read and do; weak: option of evidence, options: of walk_instances."""

    cams: Reader
    fields: Reader
    weak: float
    options: Mapping[str, Any]
    finish: Finish

    def load(self, name: str) -> Evidence:
        """CAMs and fields of a picture."""
        return evidence(self.cams[name], self.fields[name], self.weak)

    def alone(self, name: str, loaded: Evidence) -> Record:
        """What is made of the walk of one picture, on the CPU."""
        (walked,) = walk_instances([loaded], torch.device("cpu"), **self.options)
        return self.finish(name, walked)


def walking(
    cams: Reader, fields: Reader, parameters: Parameters, runtime: Runtime, finish: Finish
) -> mapping.Task:
    """The task of walking pictures with the parameters of section labels and finishing each."""
    walk, centroids = parameters.labels.walk, parameters.labels.centroids
    options = walk.model_dump() | {"iterations": centroids.iterations}
    work = Walking(cams, fields, centroids.weak, options, finish)
    if runtime.device.type == "cpu":
        return mapping.Task(work.load, work.alone)

    def compute(names: Sequence[str], loaded: Sequence[Evidence]) -> list[Walked]:
        """What the walk makes of each picture's evidence."""
        return walk_instances(loaded, runtime.device, **options)

    return mapping.Task(work.load, finish, compute, at_once=AT_ONCE)
