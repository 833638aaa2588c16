"""Image files of the pages: the image, its layers, thumbnails; and their URLs.

Files are kept in LRU caches, so that URLs sent to a page are answered at once. A URL changes when
its run does, so that a browser may keep it forever.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

import numpy as np

from pipeline.browser.layers import LAYERS, Size, drawn_size
from pipeline.browser.run import Run
from pipeline.browser.sample import Sample, WalkSettings
from pipeline.views import overlays, sheets

THUMBNAIL = 240
"""Longer side of a thumbnail in pixels."""


class Renderer:
    """Renders images and layers of several runs; thread-safe."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = {run.name: run for run in runs}
        # the last argument of each changes with the files and parameters of the run
        self._samples = lru_cache(24)(lambda run, name, stamp: Sample(run, name))
        self._images = lru_cache(100)(lambda run, name, stamp: _draw_image(self.sample(run, name)))
        self._layers = lru_cache(300)(
            lambda run, name, key, settings, stamp: _draw_layer(
                self.sample(run, name), key, settings, drawn_size(self.sample(run, name).size)
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
        return self._images(run, name, run.stamp())

    def layer(self, run: Run, name: str, key: str, settings: WalkSettings) -> bytes:
        """Return a layer as PNG (RGBA); raises KeyError if there is no such layer, UserError when a
        source is damaged or missing.
        """
        return self._layers(run, name, key, _followed(key, settings), run.stamp())

    def thumbnail(self, run: Run, name: str, key: str) -> bytes:
        """Return a small image as JPEG, or the layer `key` of it as PNG (RGBA), empty without one.

        Raises KeyError if the run has no such image.
        """
        return self._thumbnails(run, name, key, run.stamp())


def url(kind: str, run: Run, name: str, **parts: Any) -> str:
    """Return the URL of an image, a layer or a thumbnail; parts: what else its query holds."""
    query = {"run": run.name, "id": name, **parts, "stamp": run.stamp()}
    return f"/file/{kind}?{urlencode(query)}"


def layer_url(run: Run, name: str, key: str, settings: WalkSettings) -> str:
    """Return the URL of a layer, with the settings that it follows."""
    chosen = {part: getattr(settings, part) for part in LAYERS[key].settings}
    parts = {part: value for part, value in chosen.items() if value is not None}
    return url("layer", run, name, key=key, **parts)


def _draw_image(sample: Sample) -> bytes:
    return sheets.jpeg(overlays.resized(sample.image(), drawn_size(sample.size)))


def _draw_layer(sample: Sample, key: str, settings: WalkSettings, size: Size) -> bytes:
    drawn = overlays.layer(LAYERS[key].draw(sample, settings, size), size)
    return sheets.png(drawn, compression=1)


def _draw_thumbnail(sample: Sample, key: str) -> bytes:
    size = sheets.fitted(sample.size, THUMBNAIL)
    if key == "image":
        return sheets.jpeg(overlays.resized(sample.image(), size))
    if key in LAYERS and LAYERS[key].available(sample):
        return _draw_layer(sample, key, WalkSettings(), size)
    return sheets.png(np.zeros((1, 1, 4), np.uint8))


def _followed(key: str, settings: WalkSettings) -> WalkSettings:
    """Return the settings without those that a layer does not follow."""
    return WalkSettings(**{name: getattr(settings, name) for name in LAYERS[key].settings})
