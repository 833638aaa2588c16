"""The random walk of one image, recomputed on the spot with any exponent, length and background."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.browser.sample import Sample
from pipeline.core.artifacts import Record
from pipeline.irnet.instances import walk_input, walk_instances
from pipeline.labelling.pseudo_labels import class_maps, pseudo_labels, vote_record


@dataclass(frozen=True, slots=True)
class WalkSettings:
    """What the sliders change; None stands for the run's own parameter.

    class_: id of the class whose map is drawn, None for the highest of all; threshold: background
    score for activation maps; beta, steps: see section `walk`; background: see section `labels`.
    """

    class_: int | None = None
    threshold: float | None = None
    beta: float | None = None
    steps: int | None = None
    background: float | None = None


PATHS: Mapping[str, tuple[str, str]] = {
    "threshold": ("scores", "background"),
    "beta": ("walk", "beta"),
    "steps": ("walk", "steps"),
    "background": ("labels", "background"),
}
"""Setting -> section and name of the run's own parameter."""


def effective_value(sample: Sample, settings: WalkSettings, name: str) -> Any:
    """Return a setting if it is set, else the run's own value."""
    chosen = getattr(settings, name)
    return sample.run.value(*PATHS[name]) if chosen is None else chosen


def walk_record(sample: Sample, settings: WalkSettings) -> Record:
    """Return the walked maps: from walk.h5 at the run's own settings, else computed."""
    beta, steps = (effective_value(sample, settings, name) for name in ("beta", "steps"))
    if (beta, steps) == (sample.run.value("walk", "beta"), sample.run.value("walk", "steps")):
        return sample.record("walk")
    return sample.cached(("walk", beta, steps), lambda: _walk(sample, beta, steps))


def _walk(sample: Sample, beta: float, steps: int) -> Record:
    walk = {key: sample.run.value("walk", key) for key in ("radius", "iterations")}
    radius = sample.run.value("walk", "centroid_radius")
    start = walk_input(sample.record("cams"), sample.record("fields"), radius)
    return walk_instances([start], torch.device("cpu"), beta=beta, steps=steps, **walk)[0]


def live_class_maps(sample: Sample, settings: WalkSettings) -> tuple[np.ndarray, np.ndarray]:
    """Return the normalized class maps f4 [K,H,W] in [0,1] after the walk, and class ids [K]."""
    return class_maps(walk_record(sample, settings), sample.run.value("labels", "normalize"))


def live_labels(sample: Sample, settings: WalkSettings) -> Record:
    """Return the pseudo-labels that stage labels would write with these settings."""
    run = sample.run
    record = pseudo_labels(
        walk_record(sample, settings),
        sample.record("fields")["boundary"],
        background=effective_value(sample, settings, "background"),
        normalize=run.value("labels", "normalize"),
        min_area=run.value("labels", "min_area"),
        boundary_threshold=run.value("labels", "boundary_threshold"),
    )
    if run.value("labels", "vote") != "segments":
        return record
    segments = sample.record("segments")["segments"]
    return vote_record(record, segments, run.value("labels", "agreement"))
