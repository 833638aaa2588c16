"""Render what a page needs: image files of layers and thumbnails, their URLs, text and problems.

Results are kept in LRU caches, so that URLs sent to a page are answered at once.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Generic, TypeVar
from urllib.parse import urlencode

from pipeline.browser import readouts
from pipeline.browser.layers import LAYERS, drawn_size
from pipeline.browser.live_walk import WalkSettings
from pipeline.browser.run import Run
from pipeline.browser.sample import Sample
from pipeline.browser.state import FIRST_LAYERS, ViewState, write_settings
from pipeline.errors import UserError
from pipeline.views import overlays, sheets
from pipeline.views.sheets import Key

Value = TypeVar("Value")
THUMBNAIL = 220
"""Longer side of a thumbnail in pixels."""


class LruCache(Generic[Value]):
    """The `size` most recently used results by key; thread-safe."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the cached result of a key, or make it."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self.size:
                self._values.popitem(last=False)
        return value


@dataclass(slots=True)
class RenderedPane:
    """What the page shows of one run: URLs, lines of text by kind, legend, problems."""

    image: str = ""
    layers: dict[str, str] = field(default_factory=dict)
    available: frozenset[str] = frozenset()
    stored: dict[str, float | None] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    legend: list[Key] = field(default_factory=list)
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
        self._samples, self._files = LruCache[Sample](24), LruCache[bytes](400)
        self._thumbnails = LruCache[bytes](6000)

    def sample(self, run: Run, name: str) -> Sample:
        """Return an image of a run; KeyError if the run has no such image."""
        return self._samples.get((run.name, run.stamp(), name), lambda: Sample(run, name))

    def image(self, run: Run, name: str) -> bytes:
        """Return the image as JPEG, in the size in which layers are drawn."""
        known = ("image", run.name, run.stamp(()), name)
        return self._files.get(known, lambda: _draw_image(self.sample(run, name)))

    def layer(self, run: Run, name: str, key: str, settings: WalkSettings) -> bytes:
        """Return a layer as PNG (RGBA); raises UserError when a source is damaged or missing."""
        if key not in LAYERS:
            raise UserError(f"{key}: no such layer; choose from {', '.join(LAYERS)}")
        known = (key, run.name, _stamp(run, key), name, *_followed(key, settings).items())
        return self._files.get(
            known,
            lambda: sheets.png(LAYERS[key].render(self.sample(run, name), settings), compression=1),
        )

    def thumbnail(self, run: Run, name: str, key: str = "image") -> bytes:
        """Return a small image as JPEG, with the layer `key` if there is one."""
        known = (key, run.name, _stamp(run, key), name)
        # not of a cached sample: a grid of thousands must not evict the images being viewed
        return self._thumbnails.get(known, lambda: _draw_thumbnail(Sample(run, name), key))

    # A URL changes when its image does, so that a browser may cache it forever.

    def image_url(self, run: Run, name: str) -> str:
        """Return the URL of an image."""
        return f"/image?{urlencode({'run': run.name, 'id': name, 'stamp': run.stamp(())})}"

    def layer_url(self, run: Run, name: str, key: str, settings: WalkSettings) -> str:
        """Return the URL of a layer."""
        parts = {"run": run.name, "id": name, "stamp": _stamp(run, key)}
        return f"/layer/{key}?{urlencode(parts | _followed(key, settings))}"

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
        pane = RenderedPane()
        pane.problems += [text for key in run.paths.artifacts if (text := run.problem(key))]
        pane.problems += run.paths.missing.values()
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
        with _noting(pane.problems):
            pane.stored = readouts.stored_scores(sample)
        if "cams" in pane.layers:
            with _noting(pane.problems):
                pane.lines["cams"] = readouts.cams_score(sample, view.settings)
        if {"walk", "relabeled"} & pane.layers.keys():
            with _noting(pane.problems):
                pane.lines["walk"] = readouts.walk_score(sample, view.settings)
        with _noting(pane.problems):
            pane.legend = readouts.legend(sample, pane.layers)
            pane.ignored = readouts.has_ignored(sample, pane.layers)
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


def _followed(key: str, settings: WalkSettings) -> dict[str, str]:
    """Return the settings that a layer follows, as parts of a URL."""
    chosen = {name: getattr(settings, name) for name in LAYERS[key].settings}
    return write_settings(WalkSettings(**chosen))
