"""Pictures, layers and thumbnails as image files, drawn when asked for and kept as long as there is room."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Generic, TypeVar
from urllib.parse import urlencode

import cv2
import numpy as np

from pipeline.browser.layers import LAYERS, drawn_size
from pipeline.browser.runs import Run
from pipeline.browser.shown import Shown
from pipeline.browser.walks import Settings
from pipeline.views import overlays, sheets

Value = TypeVar("Value")
THUMBNAIL = 220
"""Pixels of a thumbnail's longer side."""


class Kept(Generic[Value]):
    """The latest results by key, as many as `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The result kept under the key, else a new one."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self.most:
                self._values.popitem(last=False)
        return value


class Drawings:
    """Image files of runs; safe to be asked from several threads."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)
        self._shown, self._files = Kept[Shown](24), Kept[bytes](400)
        self._thumbnails = Kept[bytes](6000)

    def shown(self, run: Run, name: str) -> Shown:
        """A picture of a run, with what was read and computed of it lately; KeyError if the run has no such picture."""
        return self._shown.get((run.name, run.stamp(), name), lambda: Shown(run, name))

    def picture(self, run: Run, name: str) -> bytes:
        """JPEG file of a picture, in the size in which layers are drawn."""
        return self._files.get(("picture", run.name, run.stamp(()), name), lambda: self._picture(run, name))

    def _picture(self, run: Run, name: str) -> bytes:
        shown = self.shown(run, name)
        return sheets.jpeg(overlays.resized(shown.image(), drawn_size(shown.size)))

    def layer(self, run: Run, name: str, key: str, settings: Settings) -> bytes:
        """PNG file (RGBA) of a layer; raises UserError when something it is made of is damaged or absent."""
        return self._files.get(
            (key, run.name, self.stamp(run, key), name, *_chosen(key, settings)),
            lambda: _png(LAYERS[key].picture(self.shown(run, name), settings)),
        )

    def thumbnail(self, run: Run, name: str, key: str = "picture") -> bytes:
        """JPEG file of a small picture, with a layer over it if `key` names one."""
        stamp = self.stamp(run, key) if key in LAYERS else run.stamp(())
        return self._thumbnails.get((key, run.name, stamp, name), lambda: self._thumbnail(run, name, key))

    def _thumbnail(self, run: Run, name: str, key: str) -> bytes:
        # a grid of thousands must not push the pictures looked at out of their places
        shown = Shown(run, name)
        size = sheets.fitted(shown.size, THUMBNAIL)
        drawn = overlays.resized(shown.image(), size)
        if key in LAYERS and LAYERS[key].available(shown):
            drawn = LAYERS[key].draw(shown, Settings(), size)(drawn)
        return sheets.jpeg(drawn)

    def stamp(self, run: Run, key: str) -> str:
        """Changes when something that a layer is made of does."""
        return run.stamp(LAYERS[key].sources)

    def picture_source(self, run: Run, name: str) -> str:
        """Where the page finds a picture."""
        return f"/image?{urlencode({'run': run.name, 'id': name, 'stamp': run.stamp(())})}"

    def layer_source(self, run: Run, name: str, key: str, settings: Settings) -> str:
        """Where the page finds a layer: the address changes when the layer does, so a browser may keep what it has."""
        chosen = {part: value for part, value in _chosen(key, settings) if value is not None}
        return f"/layer/{key}?{urlencode({'run': run.name, 'id': name, 'stamp': self.stamp(run, key), **chosen})}"

    def thumbnail_source(self, run: Run, name: str, key: str) -> str:
        """Where the page finds a thumbnail."""
        stamp = self.stamp(run, key) if key in LAYERS else run.stamp(())
        return f"/thumbnail?{urlencode({'run': run.name, 'id': name, 'show': key, 'stamp': stamp})}"


def _chosen(key: str, settings: Settings) -> list[tuple[str, float | None]]:
    """The settings that a layer follows."""
    return [(name, getattr(settings, name)) for name in LAYERS[key].settings]


def _png(rgba: np.ndarray) -> bytes:
    swapped = np.ascontiguousarray(rgba[..., [2, 1, 0, 3]])
    done, data = cv2.imencode(".png", swapped, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise ValueError(f"cannot write {rgba.dtype} {rgba.shape} as PNG; it must be uint8 [H,W,4]")
    return data.tobytes()
