"""A picture's page: the runs beside each other, each a stack of layers, with the panel that chooses them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

from fastapi import Request, Response
from nicegui import ui

from pipeline.browser.address import View, grid_address, picture_address, read_query, read_view
from pipeline.browser.desk import Desk, Drawn
from pipeline.browser.disagreements import Disagreements
from pipeline.browser.drawings import Drawings
from pipeline.browser.frame import dialog_takes, dress, keys_dialog, notices
from pipeline.browser.layers import LAYERS
from pipeline.browser.listing import Query, near
from pipeline.browser.pane import Pane
from pipeline.browser.panel import Panel
from pipeline.browser.selection import Selection
from pipeline.errors import UserError

KEYS = [
    ("← →", "previous, next picture in this order and filter"),
    ("Home End", "first, last picture"),
    ("↑ ↓", "the layer before, after, alone"),
    ("1 … 9, 0", "switch one of the first ten layers"),
    ("space", "picture without layers"),
    ("wheel, drag, double click", "zoom, move, whole picture"),
    ("g, Esc", "back to the grid"),
    ("?", "these keys"),
]
AHEAD = (1, 2, -1)
"""Neighbours that are drawn ahead."""


def add_picture_page(drawings: Drawings, disagreements: Disagreements) -> None:
    """Serve the pictures' pages at /picture/ID."""

    @ui.page("/picture/{name:path}", title="weakmask browse", response_timeout=30)
    async def picture(name: str, request: Request) -> Response | None:
        """The page for one visitor; 404 where there is no such picture."""
        dress()
        query, view = read_query(request.query_params), read_view(request.query_params)
        try:
            names = list(drawings.runs[0].index)
            if name not in drawings.runs[0].index:
                missing(name, near(names, name), query, view)
                return ui.context.client.build_response(request, 404)
            page = PicturePage(drawings, Selection(drawings.runs, disagreements), query, view, name)
            await page.build()
        except UserError as error:
            ui.html(notices([str(error)]), sanitize=False)
        return None


def missing(name: str, others: Sequence[str], query: Query, view: View) -> None:
    """Say that there is no such picture, and which ones are near."""
    links = "".join(
        f'<li><a href="{escape(picture_address(other, query, view))}">{escape(other)}</a></li>'
        for other in others
    )
    ui.html(
        f'<div class="missing"><h2>There is no picture {escape(repr(name))}</h2>'
        + (f"<p>Did you mean</p><ul>{links}</ul>" if links else "")
        + f'<p><a href="{escape(grid_address(query, view))}">All pictures</a></p></div>',
        sanitize=False,
    )


class PicturePage:
    """One visitor's page, which goes from picture to picture."""

    def __init__(self, drawings: Drawings, selection: Selection, query: Query, view: View, name: str) -> None:
        self.drawings, self.query, self.view, self.name = drawings, query, view, name
        known = {run.name: run for run in drawings.runs}
        self.runs = [known[pane] for pane in view.panes if pane in known] or list(drawings.runs)
        self.names = selection.names(query)
        if name not in self.names:
            self.names = list(drawings.runs[0].index)
        self.desk = Desk(drawings, self.runs)
        self.drawn: dict[str, Drawn] = {}
        self.turn = 0

    async def build(self) -> None:
        """The whole page with its first picture."""
        with ui.element("header").classes("bar"):
            self._bar()
        self.notices = ui.html("", sanitize=False)
        with ui.element("div").classes("desk"):
            with ui.element("div").classes("panes" + (" many" if len(self.runs) > 2 else "")) as self.panes:
                self.stacks = [Pane(number, run) for number, run in enumerate(self.runs)]
            drawn = await self._draw(self.name, self.view)
            self.panel = Panel(self, self.runs)
            # the browser fetches these while it still reads the page's scripts
            ui.add_head_html("".join(_preload(url) for one in drawn[1].values() for url in one.sources))
        self.keys = keys_dialog(KEYS)
        ui.on("key", lambda event: self._key(event.args))
        ui.on("point", lambda event: self._point(event.args))
        self._apply(drawn)
        ui.timer(0.2, self._look_ahead, once=True)

    def _bar(self) -> None:
        ui.link("weakmask", grid_address(self.query, self.view)).classes("brand")
        with ui.element("span"):
            ui.button(icon="chevron_left", on_click=lambda: self._step(-1)).props("flat dense round")
            ui.button(icon="chevron_right", on_click=lambda: self._step(1)).props("flat dense round")
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
        ui.button(icon="grid_view", on_click=self._leave).props("flat dense round").tooltip("the grid (g)")
        ui.button(icon="keyboard", on_click=lambda: self.keys.open()).props("flat dense round")

    def _choose(self, names: Sequence[str]) -> None:
        """Other runs beside each other."""
        if names:
            self.view = replace(self.view, panes=tuple(names))
            ui.navigate.to(picture_address(self.name, self.query, self.view))

    async def _draw(self, name: str, view: View) -> tuple[View, dict[str, Drawn]]:
        """What the desk draws, in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(None, self.desk.draw, name, view)

    async def show(self, name: str | None = None, view: View | None = None) -> None:
        """Another picture, or another view of this one; of several asked for at once the last is shown."""
        self.turn += 1
        turn = self.turn
        self.name, self.view = name or self.name, view or self.view
        drawn = await self._draw(self.name, self.view)
        if turn == self.turn:
            self._apply(drawn)
            ui.run_javascript(f"weakmask.address({picture_address(self.name, self.query, self.view)!r})")
            ui.timer(0.05, self._look_ahead, once=True)

    def _apply(self, result: tuple[View, dict[str, Drawn]]) -> None:
        """Put what was drawn on the page."""
        self.view, self.drawn = result
        index = self.drawings.runs[0].index
        picture = index[self.name]
        self.title.text = self.name
        self.place.text = f"{self.names.index(self.name) + 1} of {len(self.names)}"
        tags = ", ".join(index.classes[tag] for tag in picture.tags) or "no class"
        self.tags.text = f"{tags} · {picture.split} · {picture.width} × {picture.height}"
        self.panes.classes(**({"add": "bare"} if self.view.bare else {"remove": "bare"}))
        for pane in self.stacks:
            pane.show(self.drawn[pane.run.name], self.view, (picture.height, picture.width), len(self.runs))
        texts = list(dict.fromkeys(text for one in self.drawn.values() for text in one.problems))
        self.notices.content = notices(texts)
        self.panel.show(self.view, self.drawn)

    async def _look_ahead(self) -> None:
        """Draw the neighbours, and let the browser fetch them."""
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
            await self.show(view=replace(self.view, layers={there[place % len(there)]: 1.0}, bare=False))

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
