"""The random walk of one image, computed on the spot with any exponent, length and background."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.browser.sample import Sample
from pipeline.core.artifacts import Record
from pipeline.errors import UserError
from pipeline.irnet.instances import walk_input, walk_instances
from pipeline.labelling.pseudo_labels import class_maps, pseudo_labels, vote_record


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be moved while looking; None stands for the run's own parameter.

    class_: id of the class whose map is shown, None for the highest of all; threshold: the
    background's score against activation maps; beta, steps, background: as in section `labels`.
    """

    class_: int | None = None
    threshold: float | None = None
    beta: float | None = None
    steps: int | None = None
    background: float | None = None


PATHS: Mapping[str, tuple[str, ...]] = {
    "threshold": ("scores", "background"),
    "beta": ("walk", "beta"),
    "steps": ("walk", "steps"),
    "background": ("labels", "background"),
}
"""Setting -> where the run's own value stands in its parameters."""


def own(parameters: Mapping[str, Any], *path: str) -> Any:
    """A parameter of a run; raises UserError naming it where the run has none."""
    value: Any = parameters
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            raise UserError(
                f"{'.'.join(path)}: not in the run's parameters, so this cannot be computed"
            )
        value = value[key]
    return value


def setting(shown: Sample, settings: Settings, name: str) -> Any:
    """A setting as chosen, else the run's own."""
    chosen = getattr(settings, name)
    return own(shown.run.parameters, *PATHS[name]) if chosen is None else chosen


def walk_record(shown: Sample, settings: Settings) -> Record:
    """Return the walk's record: as stored with the run's own exponent and length, else computed."""
    beta, steps = setting(shown, settings, "beta"), setting(shown, settings, "steps")
    stored = (beta, steps) == (
        setting(shown, Settings(), "beta"),
        setting(shown, Settings(), "steps"),
    )
    if stored and shown.has("walk"):
        return shown.record("walk")
    return shown.remember(("walk", beta, steps), lambda: _walk(shown, beta, steps))


def scores(shown: Sample, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Return what is compared with the background: scores f4 [K,H,W] in [0,1], class ids [K]."""
    normalize = own(shown.run.parameters, "labels", "normalize")
    return class_maps(walk_record(shown, settings), normalize)


def relabeled(shown: Sample, settings: Settings) -> Record:
    """Return pseudo-labels as stage labels would write them with these settings."""
    parameters = shown.run.parameters
    names = ("normalize", "min_area", "boundary_threshold")
    rules = {key: own(parameters, "labels", key) for key in names}
    record = pseudo_labels(
        walk_record(shown, settings),
        shown.record("fields")["boundary"],
        background=setting(shown, settings, "background"),
        **rules,
    )
    if own(parameters, "labels", "vote") != "segments":
        return record
    return vote_record(
        record, shown.record("segments")["segments"], own(parameters, "labels", "agreement")
    )


def _walk(shown: Sample, beta: float, steps: int) -> Record:
    walk = {key: own(shown.run.parameters, "walk", key) for key in ("radius", "iterations")}
    radius = own(shown.run.parameters, "walk", "centroid_radius")
    start = walk_input(shown.record("cams"), shown.record("fields"), radius)
    return walk_instances([start], torch.device("cpu"), beta=beta, steps=steps, **walk)[0]
