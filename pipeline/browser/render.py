"""Everything that a view of an image needs, drawn ahead of showing it: addresses of layers, words,
and what went wrong.

Images, layers and thumbnails as image files, drawn when asked for and kept as long as there is
room.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Generic, TypeVar
from urllib.parse import urlencode

import cv2
import numpy as np

from pipeline.browser import readouts
from pipeline.browser.layers import LAYERS, drawn_size
from pipeline.browser.live_walk import Settings
from pipeline.browser.run import Run
from pipeline.browser.sample import Sample
from pipeline.browser.state import FIRST, View
from pipeline.errors import UserError
from pipeline.views import overlays, sheets
from pipeline.views.sheets import Key

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
        self._shown, self._files = Kept[Sample](24), Kept[bytes](400)
        self._thumbnails = Kept[bytes](6000)

    def shown(self, run: Run, name: str) -> Sample:
        """An image of a run, with what was read and computed of it lately; KeyError if the run has
        no such image.
        """
        return self._shown.get((run.name, run.stamp(), name), lambda: Sample(run, name))

    def image(self, run: Run, name: str) -> bytes:
        """JPEG file of an image, in the size in which layers are drawn."""
        return self._files.get(
            ("image", run.name, run.stamp(()), name), lambda: self._image(run, name)
        )

    def _image(self, run: Run, name: str) -> bytes:
        shown = self.shown(run, name)
        return sheets.jpeg(overlays.resized(shown.image(), drawn_size(shown.size)))

    def layer(self, run: Run, name: str, key: str, settings: Settings) -> bytes:
        """PNG file (RGBA) of a layer; raises UserError when something it is made of is damaged or
        absent.
        """
        return self._files.get(
            (key, run.name, self.stamp(run, key), name, *_chosen(key, settings)),
            lambda: _png(LAYERS[key].image(self.shown(run, name), settings)),
        )

    def thumbnail(self, run: Run, name: str, key: str = "image") -> bytes:
        """JPEG file of a small image, with a layer over it if `key` names one."""
        stamp = self.stamp(run, key) if key in LAYERS else run.stamp(())
        return self._thumbnails.get(
            (key, run.name, stamp, name), lambda: self._thumbnail(run, name, key)
        )

    def _thumbnail(self, run: Run, name: str, key: str) -> bytes:
        # a grid of thousands must not push the images looked at out of their places
        shown = Sample(run, name)
        size = sheets.fitted(shown.size, THUMBNAIL)
        drawn = overlays.resized(shown.image(), size)
        if key in LAYERS and LAYERS[key].available(shown):
            drawn = LAYERS[key].draw(shown, Settings(), size)(drawn)
        return sheets.jpeg(drawn)

    def stamp(self, run: Run, key: str) -> str:
        """Changes when something that a layer is made of does."""
        return run.stamp(LAYERS[key].sources)

    def image_source(self, run: Run, name: str) -> str:
        """Where the page finds an image."""
        return f"/image?{urlencode({'run': run.name, 'id': name, 'stamp': run.stamp(())})}"

    def layer_source(self, run: Run, name: str, key: str, settings: Settings) -> str:
        """Where the page finds a layer: the address changes when the layer does, so a browser may
        keep what it has.
        """
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


@dataclass(slots=True)
class Drawn:
    """What one pane shows: sources of the image and of its layers, lines below it, what went wrong,
    the words of the panel.
    """

    image: str = ""
    layers: dict[str, str] = field(default_factory=dict)
    available: frozenset[str] = frozenset()
    stored: dict[str, float | None] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    legend: list[Key] = field(default_factory=list)
    ignored: bool = False
    there: bool = True

    @property
    def sources(self) -> list[str]:
        """Addresses of all images."""
        return [url for url in (self.image, *self.layers.values()) if url]


class Renderer:
    """Draws images of the runs that lie beside each other."""

    def __init__(self, drawings: Drawings, runs: Sequence[Run]) -> None:
        self.drawings, self.runs = drawings, runs

    def draw(self, name: str, view: View) -> tuple[View, dict[str, Drawn]]:
        """Everything that an image's view needs, drawn and kept: so the addresses sent to the page
        are answered at once.
        """
        if view.layers is None:
            view = replace(view, layers=self._first(name))
        return view, {run.name: self._run(run, name, view) for run in self.runs}

    def _first(self, name: str) -> dict[str, float]:
        """The layers of a new page: the best that there is."""
        run = self.runs[0]
        if name not in run.index:
            return {}
        shown = self.drawings.shown(run, name)
        return dict.fromkeys([key for key in FIRST if LAYERS[key].available(shown)][:1], 1.0)

    def _run(self, run: Run, name: str, view: View) -> Drawn:
        drawn = Drawn()
        drawn.problems += [text for key in run.places.artifacts if (text := run.problem(key))]
        drawn.problems += run.places.lacking.values()
        try:
            shown = self.drawings.shown(run, name)
            self.drawings.image(run, name)
            drawn.image = self.drawings.image_source(run, name)
            drawn.available = frozenset(
                key for key, layer in LAYERS.items() if layer.available(shown)
            )
        except KeyError:
            drawn.there = False
            return drawn
        except (UserError, ValueError) as error:
            drawn.problems.append(str(error))
            return drawn
        wanted = [key for key in view.layers or {} if key in drawn.available]
        for key in wanted:
            self._attempt(drawn, partial(self._layer, drawn, run, name, key, view))
        self._attempt(drawn, lambda: drawn.stored.update(readouts.stored_scores(shown)))
        if "cams" in drawn.layers:
            self._attempt(
                drawn, lambda: drawn.lines.update(cams=readouts.cams_score(shown, view.settings))
            )
        if {"walk", "relabeled"} & drawn.layers.keys():
            self._attempt(
                drawn, lambda: drawn.lines.update(walk=readouts.walk_score(shown, view.settings))
            )
        self._attempt(drawn, lambda: drawn.legend.extend(readouts.legend(shown, drawn.layers)))
        self._attempt(
            drawn, lambda: setattr(drawn, "ignored", readouts.ignored(shown, drawn.layers))
        )
        return drawn

    def _layer(self, drawn: Drawn, run: Run, name: str, key: str, view: View) -> None:
        self.drawings.layer(run, name, key, view.settings)
        drawn.layers[key] = self.drawings.layer_source(run, name, key, view.settings)

    @staticmethod
    def _attempt(drawn: Drawn, work: Callable[[], object]) -> None:
        """Do one thing; what is wrong with it becomes a notice and leaves the others alone."""
        try:
            work()
        except (UserError, ValueError) as error:
            if str(error) not in drawn.problems:
                drawn.problems.append(str(error))
