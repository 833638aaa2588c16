"""How long trainings have to be: a few steps teach nothing, however many epochs they are."""

import math

from pipeline.params import Parameters

LEAST_STEPS = {"classifier": 200, "irnet": 100, "semantic": 160, "instance": 400}
"""Optimizer steps after which each training gives useful results from pretrained weights, about
those of the built-in scenes (docs/results.md).
"""


def steps(parameters: Parameters, stage: str, images: int) -> int:
    """Return the optimizer steps of a training stage on a number of images, at least one."""
    section = getattr(parameters, stage)
    return max(1, math.ceil(section.epochs * images / section.batch))


def epochs_of(parameters: Parameters, stage: str, images: int) -> int:
    """Return the epochs of a training stage, more than the parameters' where LEAST_STEPS needs."""
    section = getattr(parameters, stage)
    least = math.ceil(LEAST_STEPS[stage] * section.batch / max(1, images))
    return max(math.ceil(section.epochs), least)


def find_short(parameters: Parameters, stage: str, images: int) -> tuple[str, str] | None:
    """Return what is wrong and what to do if a training has less than half of LEAST_STEPS."""
    number = steps(parameters, stage, images)
    if number >= LEAST_STEPS[stage] / 2:
        return None
    epochs = epochs_of(parameters, stage, images)
    plural = "" if number == 1 else "s"
    return f"only {number} training step{plural}", f"raise {stage}.epochs to about {epochs}"
