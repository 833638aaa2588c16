"""What an image's page says in words: scores, legend, values under the mouse, parameters."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from pipeline.browser.live_walk import Settings, relabeled, setting
from pipeline.browser.run import SCORED
from pipeline.browser.sample import STEPS, Sample
from pipeline.core.artifacts import IGNORE
from pipeline.metrics.semantic import ThresholdCurve, threshold_grid
from pipeline.views import overlays, sheets
from pipeline.views.report import percent

MAPS = {"seeds": "seeds", "labels": "labels", "predictions": "predictions", "truth": "truth"}
"""Layers that are label maps as stored, and their steps."""
MADE_BY = (
    "segments",
    "classifier",
    "cams",
    "seeds",
    "irnet",
    "fields",
    "labels",
    "semantic",
    "instance",
    "predictions",
    "scores",
)
"""Sections of the parameters, in the order of the pipeline."""


def stored_scores(shown: Sample) -> dict[str, float | None]:
    """mIoU of the image by scored step, as the score tables have it."""
    return {step: shown.run.miou(step).get(shown.name) for step in SCORED}


def cams_score(shown: Sample, settings: Settings) -> str:
    """mIoU of the activation maps at the chosen threshold, and the best that any threshold gives on
    this image.
    """
    threshold = setting(shown, settings, "threshold")
    reached = shown.miou(shown.label_map("cams", threshold))
    if reached is None:
        return "no mask to compare with"
    best_at, best = shown.remember("best threshold", lambda: _best(shown))
    return f"mIoU {percent(reached)} at {threshold:.2f} · best {percent(best)} at {best_at:.2f}"


def _best(shown: Sample) -> tuple[float, float]:
    curve = ThresholdCurve(shown.index.classes, threshold_grid())
    curve.add(shown.truth(), *shown.maps())
    return curve.best()


def walk_score(shown: Sample, settings: Settings) -> str:
    """mIoU of the labels that the walk gives with the chosen settings, beside that of the stored
    ones.
    """
    reached = shown.miou(relabeled(shown, settings)["semantic"])
    if reached is None:
        return "no mask to compare with"
    stored = shown.miou(shown.record("labels")["semantic"]) if shown.has("labels") else None
    return f"mIoU {percent(reached)}" + (
        "" if stored is None else f" · stored labels {percent(stored)}"
    )


def legend(shown: Sample, layers: Collection[str]) -> list[sheets.Key]:
    """(name, color) of the classes that the image is tagged with or that a shown label map holds."""
    tagged = np.array([tag + 1 for tag in shown.entry.tags], np.uint8)
    maps = [shown.label_map(MAPS[key], 0) for key in layers if key in MAPS]
    return sheets.legend([tagged, *maps], shown.index.classes)


def ignored(shown: Sample, layers: Collection[str]) -> bool:
    """Whether a shown label map has pixels that it says nothing of."""
    return any((shown.label_map(MAPS[key], 0) == IGNORE).any() for key in layers if key in MAPS)


def values_at(shown: Sample, y: int, x: int) -> list[tuple[str, str]]:
    """What every artifact says of the pixel (y, x): (title, value)."""
    classes = shown.index.classes
    found = []
    if shown.has("cams"):
        maps, ids = shown.maps()
        found += [
            (f"map of {_class(int(c) + 1, classes)}", f"{one[y, x]:.2f}")
            for one, c in zip(maps, ids, strict=True)
        ]
    if shown.has("fields"):
        record = shown.record("fields")
        dy, dx = record["displacement"][:, y // 4, x // 4]
        found.append(("boundary", f"{record['boundary'][y // 4, x // 4]:.2f}"))
        found.append(("displacement", f"{float(dx):+.1f} right, {float(dy):+.1f} down, cells"))
    if shown.has("segments"):
        found.append(("segment", str(shown.record("segments")["segments"][y, x] or "none")))
    for step in MAPS.values():
        if shown.has(step):
            found.append((STEPS[step], _class(int(shown.label_map(step, 0)[y, x]), classes)))
    return found


def _class(label: int, classes: Sequence[str]) -> str:
    """The name of a label."""
    named = {0: "background", IGNORE: "unsure"}
    return named.get(label) or (
        classes[label - 1] if label <= len(classes) else f"unknown label {label}"
    )


def made_with(parameters: Mapping[str, Any], sections: Iterable[str] = MADE_BY) -> str:
    """The parameters of a run as YAML, of every method the chosen one's alone."""
    chosen: dict[str, Any] = {}
    for name in sections:
        section = parameters.get(name)
        if isinstance(section, Mapping):
            others = {"cam", "seenet", "puzzlecam", "s2c", "none", "sparseinst", "maskrcnn"} - {
                section.get("method")
            }
            chosen[name] = {
                key: value
                for key, value in section.items()
                if "method" not in section or key not in others
            }
    return yaml.safe_dump(
        chosen, sort_keys=False, default_flow_style=None, width=60, allow_unicode=True
    )


def css(color: Sequence[int]) -> str:
    """A color for a style sheet."""
    return "#{:02x}{:02x}{:02x}".format(*color)


HATCH = css(overlays.HATCH[0]), css(overlays.HATCH[1])
"""The two grays of what is ignored."""
