"""The text on an image's page: scores, legend, values under the mouse, parameters."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from pipeline.browser.live_walk import WalkSettings, effective_value, live_labels
from pipeline.browser.run import SCORED
from pipeline.browser.sample import STEPS, Sample
from pipeline.core.artifacts import IGNORE
from pipeline.metrics.semantic import ThresholdCurve, threshold_grid
from pipeline.views import sheets
from pipeline.views.report import percent

LABEL_MAPS = ("seeds", "labels", "predictions", "truth")
"""Steps whose label maps are stored; layers have the same names."""
SECTIONS = (
    *("segments", "classifier", "cams", "seeds", "irnet", "fields", "walk", "labels"),
    *("semantic", "instance", "predictions", "scores"),
)
"""Sections of the parameters, in the order of the pipeline."""


def stored_scores(sample: Sample) -> dict[str, float | None]:
    """Return the image's mIoU by scored step, from the score tables."""
    return {step: sample.run.miou(step).get(sample.name) for step in SCORED}


def cams_score(sample: Sample, settings: WalkSettings) -> str:
    """Return the mIoU of the activation maps at the chosen threshold, and the best of any."""
    threshold = effective_value(sample, settings, "threshold")
    reached = sample.miou(sample.label_map("cams", threshold))
    if reached is None:
        return "no mask to compare with"
    best_at, best = sample.cached("best threshold", lambda: _best_threshold(sample))
    return f"mIoU {percent(reached)} at {threshold:.2f} · best {percent(best)} at {best_at:.2f}"


def _best_threshold(sample: Sample) -> tuple[float, float]:
    curve = ThresholdCurve(sample.index.classes, threshold_grid())
    curve.add(sample.ground_truth(), *sample.cams())
    return curve.best()


def walk_score(sample: Sample, settings: WalkSettings) -> str:
    """Return the mIoU of the live pseudo-labels, next to that of the stored ones."""
    reached = sample.miou(live_labels(sample, settings)["semantic"])
    if reached is None:
        return "no mask to compare with"
    stored = sample.miou(sample.label_map("labels")) if sample.has("labels") else None
    compared = "" if stored is None else f" · stored labels {percent(stored)}"
    return f"mIoU {percent(reached)}{compared}"


def legend(sample: Sample, layers: Collection[str]) -> list[sheets.Key]:
    """Return (name, color) of the classes among the image's tags or in a visible label map."""
    tagged = np.array([tag + 1 for tag in sample.entry.tags], np.uint8)
    maps = [sample.label_map(step) for step in LABEL_MAPS if step in layers]
    return sheets.legend([tagged, *maps], sample.index.classes)


def has_ignored(sample: Sample, layers: Collection[str]) -> bool:
    """Whether a visible label map has ignored pixels."""
    return any((sample.label_map(step) == IGNORE).any() for step in LABEL_MAPS if step in layers)


def values_at(sample: Sample, y: int, x: int) -> list[tuple[str, str]]:
    """Return (title, value) of every artifact at the pixel (y, x)."""
    classes = sample.index.classes
    found = []
    if sample.has("cams"):
        for cam, c in zip(*sample.cams(), strict=True):
            found.append((f"map of {_label_name(int(c) + 1, classes)}", f"{cam[y, x]:.2f}"))
    if sample.has("fields"):
        record = sample.record("fields")
        dy, dx = record["displacement"][:, y // 4, x // 4].astype(float)
        found.append(("boundary", f"{record['boundary'][y // 4, x // 4]:.2f}"))
        found.append(("displacement", f"{dx:+.1f} right, {dy:+.1f} down, cells"))
    if sample.has("segments"):
        segment = sample.record("segments")["segments"][y, x]
        found.append(("segment", str(segment or "none")))
    for step in LABEL_MAPS:
        if sample.has(step):
            label = int(sample.label_map(step)[y, x])
            found.append((STEPS[step], _label_name(label, classes)))
    return found


def _label_name(label: int, classes: Sequence[str]) -> str:
    if label in (0, IGNORE):
        return "ignored" if label else "background"
    return classes[label - 1] if label <= len(classes) else f"unknown label {label}"


def parameters_yaml(parameters: Mapping[str, Any], sections: Iterable[str] = SECTIONS) -> str:
    """Return a run's parameters as YAML, with the options of the chosen methods only."""
    methods = {"cam", "seenet", "puzzlecam", "s2c", "none", "sparseinst", "maskrcnn"}
    chosen: dict[str, Any] = {}
    for name in sections:
        section = parameters.get(name)
        if isinstance(section, Mapping):
            hidden = methods - {section["method"]} if "method" in section else set()
            chosen[name] = {key: value for key, value in section.items() if key not in hidden}
    return yaml.safe_dump(
        chosen, sort_keys=False, default_flow_style=None, width=60, allow_unicode=True
    )
