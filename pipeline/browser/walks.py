"""The random walk of one picture, computed on the spot with any exponent, length and background."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.browser.shown import Shown
from pipeline.errors import UserError
from pipeline.labels import Walked, class_maps, evidence, pseudo_labels, walk_instances
from pipeline.store import Record
from pipeline.voting import vote_record


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be moved while looking; None stands for the run's own parameter.

    class_: id of the class whose map is shown, None for the highest of all; threshold: the background's score against activation
    maps; beta, steps, background: as in section `labels`.
    """

    class_: int | None = None
    threshold: float | None = None
    beta: float | None = None
    steps: int | None = None
    background: float | None = None


PATHS: Mapping[str, tuple[str, ...]] = {
    "threshold": ("scores", "background"),
    "beta": ("labels", "walk", "beta"),
    "steps": ("labels", "walk", "steps"),
    "background": ("labels", "background"),
}
"""Setting -> where the run's own value stands in its parameters."""


def own(parameters: Mapping[str, Any], *path: str) -> Any:
    """A parameter of a run; raises UserError naming it where the run has none."""
    value: Any = parameters
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            raise UserError(f"{'.'.join(path)}: not in the run's parameters, so this cannot be computed")
        value = value[key]
    return value


def setting(shown: Shown, settings: Settings, name: str) -> Any:
    """A setting as chosen, else the run's own."""
    chosen = getattr(settings, name)
    return own(shown.run.parameters, *PATHS[name]) if chosen is None else chosen


def walked(shown: Shown, settings: Settings) -> Walked:
    """The walk's result on the stride-4 grid, once for each exponent and length."""
    beta, steps = setting(shown, settings, "beta"), setting(shown, settings, "steps")
    return shown.remember(("walk", beta, steps), lambda: _walk(shown, beta, steps))


def scores(shown: Shown, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """What is compared with the background: scores f4 [K,H,W] in [0,1] and their class ids [K]."""
    normalise = own(shown.run.parameters, "labels", "normalise")
    record = class_maps(walked(shown, settings), normalise=normalise)
    return record["maps"], record["labels"]


def relabelled(shown: Shown, settings: Settings) -> Record:
    """Pseudo-labels as stage labels would write them with these settings."""
    parameters = shown.run.parameters
    rules = {key: own(parameters, "labels", key) for key in ("normalise", "min_area", "cut")}
    record = pseudo_labels(
        walked(shown, settings), background=setting(shown, settings, "background"), **rules
    )
    if own(parameters, "labels", "vote") != "segments":
        return record
    return vote_record(record, shown.record("segments")["segments"], own(parameters, "labels", "agreement"))


def _walk(shown: Shown, beta: float, steps: int) -> Walked:
    parameters = shown.run.parameters
    return walk_instances(
        [
            evidence(
                shown.record("cams"), shown.record("fields"), own(parameters, "labels", "centroids", "weak")
            )
        ],
        torch.device("cpu"),
        radius=own(parameters, "labels", "walk", "radius"),
        beta=beta,
        steps=steps,
        iterations=own(parameters, "labels", "centroids", "iterations"),
    )[0]
