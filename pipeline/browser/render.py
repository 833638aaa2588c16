"""Render what a page needs: image files of layers and thumbnails, their URLs, scores and problems.

Results are kept in LRU caches, so that URLs sent to a page are answered at once.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from urllib.parse import urlencode

import numpy as np

from pipeline.browser.layers import LAYERS, drawn_size
from pipeline.browser.run import SCORED, Run
from pipeline.browser.sample import (
    LABEL_MAPS,
    Sample,
    WalkSettings,
    effective_value,
    live_labels,
)
from pipeline.browser.state import FIRST_LAYERS, ViewState, write_settings
from pipeline.core.artifacts import IGNORE
from pipeline.errors import UserError
from pipeline.metrics.semantic import ThresholdCurve, threshold_grid
from pipeline.views import overlays, sheets
from pipeline.views.report import percent

THUMBNAIL = 220
"""Longer side of a thumbnail in pixels."""


@dataclass(slots=True)
class RenderedPane:
    """What the page shows of one run: URLs, lines of text by kind, legend, problems."""

    image: str = ""
    layers: dict[str, str] = field(default_factory=dict)
    available: frozenset[str] = frozenset()
    stored: dict[str, float | None] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    legend: list[sheets.Key] = field(default_factory=list)
    ignored: bool = False
    exists: bool = True

    @property
    def urls(self) -> list[str]:
        """The URLs of all its image files."""
        return [url for url in (self.image, *self.layers.values()) if url]


class Renderer:
    """Renders images, layers and whole panes of several runs; thread-safe."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)
        # the last argument of each changes with the files that it reads
        self._samples = lru_cache(24)(lambda run, name, stamp: Sample(run, name))
        self._images = lru_cache(100)(lambda run, name, stamp: _draw_image(self.sample(run, name)))
        self._layers = lru_cache(300)(
            lambda run, name, key, settings, stamp: sheets.png(
                LAYERS[key].render(self.sample(run, name), settings), compression=1
            )
        )
        # not of a cached sample: a grid of thousands must not evict the images being viewed
        self._thumbnails = lru_cache(6000)(
            lambda run, name, key, stamp: _draw_thumbnail(Sample(run, name), key)
        )

    def sample(self, run: Run, name: str) -> Sample:
        """Return an image of a run; KeyError if the run has no such image."""
        return self._samples(run, name, run.stamp())

    def image(self, run: Run, name: str) -> bytes:
        """Return the image as JPEG, in the size in which layers are drawn."""
        return self._images(run, name, run.stamp(()))

    def layer(self, run: Run, name: str, key: str, settings: WalkSettings) -> bytes:
        """Return a layer as PNG (RGBA); raises UserError when a source is damaged or missing."""
        if key not in LAYERS:
            raise UserError(f"{key}: no such layer; choose from {', '.join(LAYERS)}")
        return self._layers(run, name, key, _followed(key, settings), _stamp(run, key))

    def thumbnail(self, run: Run, name: str, key: str = "image") -> bytes:
        """Return a small image as JPEG, with the layer `key` if there is one."""
        return self._thumbnails(run, name, key, _stamp(run, key))

    # A URL changes when its image does, so that a browser may cache it forever.

    def image_url(self, run: Run, name: str) -> str:
        """Return the URL of an image."""
        return f"/image?{urlencode({'run': run.name, 'id': name, 'stamp': run.stamp(())})}"

    def layer_url(self, run: Run, name: str, key: str, settings: WalkSettings) -> str:
        """Return the URL of a layer."""
        parts = {"run": run.name, "id": name, "stamp": _stamp(run, key)}
        return f"/layer/{key}?{urlencode(parts | write_settings(_followed(key, settings)))}"

    def thumbnail_url(self, run: Run, name: str, key: str) -> str:
        """Return the URL of a thumbnail."""
        parts = {"run": run.name, "id": name, "show": key, "stamp": _stamp(run, key)}
        return f"/thumbnail?{urlencode(parts)}"

    def render(
        self, name: str, view: ViewState, runs: Sequence[Run]
    ) -> tuple[ViewState, dict[str, RenderedPane]]:
        """Render everything that a view of an image needs; return the view with its layers chosen,
        and the pane of each run.
        """
        if view.layers is None:
            view = replace(view, layers=self._first_layer(name, runs[0]))
        return view, {run.name: self._pane(run, name, view) for run in runs}

    def _first_layer(self, name: str, run: Run) -> dict[str, float]:
        if name not in run.index:
            return {}
        sample = self.sample(run, name)
        return dict.fromkeys(
            [key for key in FIRST_LAYERS if LAYERS[key].available(sample)][:1], 1.0
        )

    def _pane(self, run: Run, name: str, view: ViewState) -> RenderedPane:
        pane = RenderedPane(problems=run.problems())
        try:
            sample = self.sample(run, name)
            self.image(run, name)
        except KeyError:
            pane.exists = False
            return pane
        except (UserError, ValueError) as error:
            pane.problems.append(str(error))
            return pane
        pane.image = self.image_url(run, name)
        pane.available = frozenset(key for key in LAYERS if LAYERS[key].available(sample))
        for key in view.layers or {}:
            if key in pane.available:
                with _noting(pane.problems):
                    self.layer(run, name, key, view.settings)
                    pane.layers[key] = self.layer_url(run, name, key, view.settings)
        pane.stored = {step: run.miou(step).get(name) for step in SCORED}
        if "cams" in pane.layers:
            with _noting(pane.problems):
                pane.lines["cams"] = cams_score(sample, view.settings)
        if {"walk", "relabeled"} & pane.layers.keys():
            with _noting(pane.problems):
                pane.lines["walk"] = walk_score(sample, view.settings)
        with _noting(pane.problems):
            maps = [sample.label_map(step) for step in LABEL_MAPS if step in pane.layers]
            tagged = np.array([tag + 1 for tag in sample.entry.tags], np.uint8)
            pane.legend = sheets.legend([tagged, *maps], sample.index.classes)
            pane.ignored = any((labels == IGNORE).any() for labels in maps)
        return pane


def _draw_image(sample: Sample) -> bytes:
    return sheets.jpeg(overlays.resized(sample.image(), drawn_size(sample.size)))


def _draw_thumbnail(sample: Sample, key: str) -> bytes:
    size = sheets.fitted(sample.size, THUMBNAIL)
    drawn = overlays.resized(sample.image(), size)
    if key in LAYERS and LAYERS[key].available(sample):
        drawn = LAYERS[key].draw(sample, WalkSettings(), size)(drawn)
    return sheets.jpeg(drawn)


@contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    """Turn an error into a notice, so that everything else is still shown."""
    try:
        yield
    except (UserError, ValueError) as error:
        if str(error) not in problems:
            problems.append(str(error))


def _stamp(run: Run, key: str) -> str:
    """Return a text that changes when something that a layer is made of does."""
    return run.stamp((*LAYERS[key].sources, *LAYERS[key].live) if key in LAYERS else ())


def _followed(key: str, settings: WalkSettings) -> WalkSettings:
    """Return the settings without those that a layer does not follow."""
    return WalkSettings(**{name: getattr(settings, name) for name in LAYERS[key].settings})


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
