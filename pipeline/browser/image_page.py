"""An image's page: the runs beside each other, each a stack of layers, with the panel that chooses
them.

One run's image on an image's page: its layers one above the other, and what is said of it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

from fastapi import Request, Response
from nicegui import ui

from pipeline.browser.disagreements import Disagreements
from pipeline.browser.grid_page import dialog_takes, dress, keys_dialog, notices
from pipeline.browser.layers import LAYERS, OPAQUE
from pipeline.browser.render import Drawings, Drawn, Renderer
from pipeline.browser.run import Run
from pipeline.browser.sidebar import Panel
from pipeline.browser.state import (
    Query,
    Selection,
    View,
    grid_address,
    image_address,
    near,
    read_query,
    read_view,
)
from pipeline.errors import UserError
from pipeline.views.report import percent


class Pane:
    """One run's image with its layers one above the other."""

    def __init__(self, number: int, run: Run) -> None:
        self.run = run
        order = sorted(LAYERS, key=lambda key: key not in OPAQUE)
        with ui.element("div").classes("pane"):
            with ui.element("div").classes("title"):
                self.name = ui.html(f"<b>{escape(run.name)}</b>", sanitize=False, tag="span")
                self.scores = ui.label().classes("muted num")
            self.frame = ui.element("div").classes("frame").props(f"data-pane={number}")
            with self.frame, ui.element("div").classes("stack"):
                self.image = ui.element("img").props('alt="" draggable=false')
                self.layers = {key: self._layer(key) for key in order}
            self.lines = ui.label().classes("lines")

    @staticmethod
    def _layer(key: str) -> ui.element:
        return ui.element("img").classes("layer").props(f'alt="" draggable=false data-layer={key}')

    def show(self, drawn: Drawn, view: View, size: tuple[int, int], panes: int) -> None:
        """Show what was drawn; height and width are the image's."""
        height, width = size
        rows = 2 if panes > 2 else 1
        self.frame.style(
            f"aspect-ratio: {width} / {height}; width: min(100%, calc((100vh - {130 + 40 * rows}px) / {rows} * {width / height:.4f}))"
        )
        self.frame.visible = drawn.there
        set_source(self.image, drawn.image)
        self.image.style(f"opacity: {view.image:g}")
        for key, element in self.layers.items():
            set_source(element, drawn.layers.get(key, ""))
            element.style(f"opacity: {(view.layers or {}).get(key, 1):g}")
        stored = [
            f"{step} {percent(value)}" for step, value in drawn.stored.items() if value is not None
        ]
        self.scores.text = "mIoU: " + " · ".join(stored) if stored else ""
        absent = [] if drawn.there else ["This run has no such image."]
        lines = [f"{key}: {text}" for key, text in drawn.lines.items()] if panes > 1 else []
        self.lines.text = "; ".join([*absent, *lines])


def set_source(element: ui.element, source: str) -> None:
    """Give an image another source, or none."""
    element.visible = bool(source)
    if source and element.props.get("src") != source:
        element.props["src"] = source


KEYS = [
    ("← →", "previous, next image in this order and filter"),
    ("Home End", "first, last image"),
    ("↑ ↓", "the layer before, after, alone"),
    ("1 … 9, 0", "switch one of the first ten layers"),
    ("space", "image without layers"),
    ("wheel, drag, double click", "zoom, move, whole image"),
    ("g, Esc", "back to the grid"),
    ("?", "these keys"),
]
AHEAD = (1, 2, -1)
"""Neighbors that are drawn ahead."""


def add_image_page(drawings: Drawings, disagreements: Disagreements) -> None:
    """Serve the images' pages at /image/ID."""

    @ui.page("/image/{name:path}", title="weakmask browse", response_timeout=30)
    async def image(name: str, request: Request) -> Response | None:
        """The page for one visitor; 404 where there is no such image."""
        dress()
        query, view = read_query(request.query_params), read_view(request.query_params)
        try:
            names = list(drawings.runs[0].index)
            if name not in drawings.runs[0].index:
                missing(name, near(names, name), query, view)
                return ui.context.client.build_response(request, 404)
            page = ImagePage(drawings, Selection(drawings.runs, disagreements), query, view, name)
            await page.build()
        except UserError as error:
            ui.html(notices([str(error)]), sanitize=False)
        return None


def missing(name: str, others: Sequence[str], query: Query, view: View) -> None:
    """Say that there is no such image, and which ones are near."""
    links = "".join(
        f'<li><a href="{escape(image_address(other, query, view))}">{escape(other)}</a></li>'
        for other in others
    )
    ui.html(
        f'<div class="missing"><h2>There is no image {escape(repr(name))}</h2>'
        + (f"<p>Did you mean</p><ul>{links}</ul>" if links else "")
        + f'<p><a href="{escape(grid_address(query, view))}">All images</a></p></div>',
        sanitize=False,
    )


class ImagePage:
    """One visitor's page, which goes from image to image."""

    def __init__(
        self, drawings: Drawings, selection: Selection, query: Query, view: View, name: str
    ) -> None:
        self.drawings, self.query, self.view, self.name = drawings, query, view, name
        known = {run.name: run for run in drawings.runs}
        self.runs = [known[pane] for pane in view.panes if pane in known] or list(drawings.runs)
        self.names = selection.names(query)
        if name not in self.names:
            self.names = list(drawings.runs[0].index)
        self.desk = Renderer(drawings, self.runs)
        self.drawn: dict[str, Drawn] = {}
        self.turn = 0

    async def build(self) -> None:
        """The whole page with its first image."""
        with ui.element("header").classes("bar"):
            self._bar()
        self.notices = ui.html("", sanitize=False)
        with ui.element("div").classes("desk"):
            with ui.element("div").classes(
                "panes" + (" many" if len(self.runs) > 2 else "")
            ) as self.panes:
                self.stacks = [Pane(number, run) for number, run in enumerate(self.runs)]
            drawn = await self._draw(self.name, self.view)
            self.panel = Panel(self, self.runs)
            # the browser fetches these while it still reads the page's scripts
            ui.add_head_html(
                "".join(_preload(url) for one in drawn[1].values() for url in one.sources)
            )
        self.keys = keys_dialog(KEYS)
        ui.on("key", lambda event: self._key(event.args))
        ui.on("point", lambda event: self._point(event.args))
        self._apply(drawn)
        ui.timer(0.2, self._look_ahead, once=True)

    def _bar(self) -> None:
        ui.link("weakmask", grid_address(self.query, self.view)).classes("brand")
        with ui.element("span"):
            ui.button(icon="chevron_left", on_click=lambda: self._step(-1)).props(
                "flat dense round"
            )
            ui.button(icon="chevron_right", on_click=lambda: self._step(1)).props(
                "flat dense round"
            )
        self.title = ui.label().props("id=name").style("font-weight:600; overflow-wrap:anywhere")
        self.place = ui.label().classes("muted num")
        self.tags = ui.label().classes("muted")
        ui.element("span").classes("grow")
        if len(self.drawings.runs) > 1:
            names = [run.name for run in self.drawings.runs]
            ui.select(
                names,
                multiple=True,
                label="runs beside each other",
                value=[run.name for run in self.runs],
                on_change=lambda e: self._choose(e.value),
            ).props("dense outlined use-chips options-dense").classes("panes-choice")
        ui.button(icon="grid_view", on_click=self._leave).props("flat dense round").tooltip(
            "the grid (g)"
        )
        ui.button(icon="keyboard", on_click=lambda: self.keys.open()).props("flat dense round")

    def _choose(self, names: Sequence[str]) -> None:
        """Other runs beside each other."""
        if names:
            self.view = replace(self.view, panes=tuple(names))
            ui.navigate.to(image_address(self.name, self.query, self.view))

    async def _draw(self, name: str, view: View) -> tuple[View, dict[str, Drawn]]:
        """What the desk draws, in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(None, self.desk.draw, name, view)

    async def show(self, name: str | None = None, view: View | None = None) -> None:
        """Another image, or another view of this one; of several asked for at once the last is
        shown.
        """
        self.turn += 1
        turn = self.turn
        self.name, self.view = name or self.name, view or self.view
        drawn = await self._draw(self.name, self.view)
        if turn == self.turn:
            self._apply(drawn)
            ui.run_javascript(
                f"weakmask.address({image_address(self.name, self.query, self.view)!r})"
            )
            ui.timer(0.05, self._look_ahead, once=True)

    def _apply(self, result: tuple[View, dict[str, Drawn]]) -> None:
        """Put what was drawn on the page."""
        self.view, self.drawn = result
        index = self.drawings.runs[0].index
        image = index[self.name]
        self.title.text = self.name
        self.place.text = f"{self.names.index(self.name) + 1} of {len(self.names)}"
        tags = ", ".join(index.classes[tag] for tag in image.tags) or "no class"
        self.tags.text = f"{tags} · {image.split} · {image.width} × {image.height}"
        self.panes.classes(**({"add": "bare"} if self.view.bare else {"remove": "bare"}))
        for pane in self.stacks:
            pane.show(
                self.drawn[pane.run.name], self.view, (image.height, image.width), len(self.runs)
            )
        texts = list(dict.fromkeys(text for one in self.drawn.values() for text in one.problems))
        self.notices.content = notices(texts)
        self.panel.show(self.view, self.drawn)

    async def _look_ahead(self) -> None:
        """Draw the neighbors, and let the browser fetch them."""
        turn, view = self.turn, self.view
        for distance in AHEAD:
            place = self.names.index(self.name) + distance
            if not 0 <= place < len(self.names) or turn != self.turn:
                continue
            _, drawn = await self._draw(self.names[place], view)
            urls = [url for one in drawn.values() for url in one.sources]
            ui.run_javascript(f"weakmask.prefetch({urls!r})")

    async def _step(self, distance: int) -> None:
        place = self.names.index(self.name) + distance
        if 0 <= place < len(self.names):
            await self.show(self.names[place])

    async def _key(self, key: str) -> None:
        """What a key does."""
        if dialog_takes(self.keys, key):
            return
        if key in ("ArrowLeft", "ArrowRight"):
            await self._step(1 if key == "ArrowRight" else -1)
        elif key in ("Home", "End"):
            await self.show(self.names[0 if key == "Home" else -1])
        elif key in ("ArrowUp", "ArrowDown"):
            await self._alone(1 if key == "ArrowDown" else -1)
        elif key.isdigit():
            await self.switch(list(LAYERS)[(int(key) - 1) % 10])
        elif key == " ":
            await self.show(view=replace(self.view, bare=not self.view.bare))
        elif key in ("g", "Escape"):
            self._leave()

    async def _alone(self, distance: int) -> None:
        """The next available layer, without the others."""
        there = [key for key in LAYERS if any(key in one.available for one in self.drawn.values())]
        if there:
            now = [there.index(key) for key in self.view.layers or {} if key in there]
            place = (max(now) if distance > 0 else min(now)) + distance if now else 0
            await self.show(
                view=replace(self.view, layers={there[place % len(there)]: 1.0}, bare=False)
            )

    async def switch(self, key: str, *, on: bool | None = None) -> None:
        """Show or hide a layer."""
        layers = dict(self.view.layers or {})
        if on is None:
            on = key not in layers
        if on == (key in layers):
            return
        if on:
            layers[key] = 1.0
        else:
            del layers[key]
        await self.show(view=replace(self.view, layers=layers, bare=False))

    def _leave(self) -> None:
        ui.navigate.to(grid_address(self.query, self.view))

    async def _point(self, at: Mapping[str, float]) -> None:
        """Say what lies under the mouse."""
        run = self.runs[int(at["pane"]) % len(self.runs)]
        if self.drawn[run.name].there and 0 <= at["x"] < 1 and 0 <= at["y"] < 1:
            await self.panel.point(self.drawings.shown(run, self.name), at["x"], at["y"])


def _preload(source: str) -> str:
    return f'<link rel="preload" as="image" href="{escape(source)}">'
