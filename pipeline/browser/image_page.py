"""An image's page: the runs side by side, each a stack of layers, with a sidebar of controls."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from fastapi import Request, Response
from nicegui import ui

from pipeline.browser.grid_page import (
    add_layout,
    html,
    icon_button,
    keys_button,
    notices,
)
from pipeline.browser.layers import LAYERS, OPAQUE
from pipeline.browser.render import RenderedPane, Renderer
from pipeline.browser.run import Run
from pipeline.browser.selection import Disagreements, Selection
from pipeline.browser.sidebar import Sidebar
from pipeline.browser.state import (
    Filter,
    ViewState,
    grid_url,
    image_url,
    read_filter,
    read_view,
)
from pipeline.errors import UserError
from pipeline.views.gallery import similar_ids
from pipeline.views.report import percent

KEYS = [
    ("← →", "previous, next image in this order and filter"),
    ("Home End", "first, last image"),
    ("↑ ↓", "the previous, next layer, alone"),
    ("1 … 9, 0", "toggle one of the first ten layers"),
    ("space", "image without layers"),
    ("wheel, drag, double click", "zoom, move, whole image"),
    ("g, Esc", "back to the grid"),
]
AHEAD = (1, 2, -1)
"""Offsets of the neighbors that are rendered ahead."""


def add_image_page(renderer: Renderer, disagreements: Disagreements) -> None:
    """Serve the images' pages at /image/ID."""

    @ui.page("/image/{name:path}", title="weakmask browse", response_timeout=30)
    async def image(name: str, request: Request) -> Response | None:
        """Build the page for one visitor; 404 if there is no such image."""
        add_layout()
        filter_, view = read_filter(request.query_params), read_view(request.query_params)
        try:
            index = renderer.runs[0].index
            if name not in index:
                similar = ", ".join(similar_ids(list(index), name)) or "none"
                html(notices([f"There is no image {name!r}; similar ids: {similar}"]))
                ui.link("all images", grid_url(filter_, view))
                return ui.context.client.build_response(request, 404)
            selection = Selection(renderer.runs, disagreements)
            await ImagePage(renderer, selection, filter_, view, name).build()
        except UserError as error:
            html(notices([str(error)]))
        return None


class ImageView:
    """One run's image with its layers on top of each other."""

    def __init__(self, number: int, run: Run) -> None:
        self.run = run
        with ui.element("div").classes("pane"):
            with ui.element("div").classes("title"):
                html(f"<b>{escape(run.name)}</b>", tag="span")
                self.scores = ui.label().classes("muted num")
            self.frame = ui.element("div").classes("frame").props(f"data-pane={number}")
            with self.frame, ui.element("div").classes("stack"):
                self.image = ui.element("img").props('alt="" draggable=false')
                self.layers = {
                    key: ui.element("img")
                    .classes("layer")
                    .props(f'alt="" draggable=false data-layer={key}')
                    for key in sorted(LAYERS, key=lambda key: key not in OPAQUE)
                }
            self.lines = ui.label().classes("lines")

    def show(self, pane: RenderedPane, view: ViewState, size: tuple[int, int], panes: int) -> None:
        """Show what was rendered; size: (height, width) of the image; panes: how many there are."""
        height, width = size
        rows = 2 if panes > 2 else 1
        fit = f"calc((100vh - {130 + 40 * rows}px) / {rows} * {width / height:.4f})"
        self.frame.style(f"aspect-ratio: {width} / {height}; width: min(100%, {fit})")
        self.frame.visible = pane.exists
        _set_source(self.image, pane.image)
        self.image.style(f"opacity: {view.image:g}")
        for key, element in self.layers.items():
            _set_source(element, pane.layers.get(key, ""))
            element.style(f"opacity: {(view.layers or {}).get(key, 1):g}")
        stored = [
            f"{step} {percent(miou)}" for step, miou in pane.stored.items() if miou is not None
        ]
        self.scores.text = "mIoU: " + " · ".join(stored) if stored else ""
        absent = [] if pane.exists else ["This run has no such image."]
        lines = [f"{key}: {text}" for key, text in pane.lines.items()] if panes > 1 else []
        self.lines.text = "; ".join([*absent, *lines])


def _set_source(element: ui.element, source: str) -> None:
    element.visible = bool(source)
    if source and element.props.get("src") != source:
        element.props["src"] = source


class ImagePage:
    """One visitor's page, which moves from image to image."""

    def __init__(
        self, renderer: Renderer, selection: Selection, filter_: Filter, view: ViewState, name: str
    ) -> None:
        self.renderer, self.filter, self.view, self.name = renderer, filter_, view, name
        self.index = renderer.runs[0].index
        known = {run.name: run for run in renderer.runs}
        self.runs = [known[pane] for pane in view.panes if pane in known] or list(renderer.runs)
        self.names = selection.names(filter_)
        if name not in self.names:
            self.names = list(self.index)
        self.panes: dict[str, RenderedPane] = {}
        self.turn = 0

    async def build(self) -> None:
        """Build the whole page with its first image."""
        with ui.element("header").classes("bar"):
            self._build_bar()
        self.notices = html()
        many = " many" if len(self.runs) > 2 else ""
        with ui.element("div").classes("columns"):
            with ui.element("div").classes(f"panes{many}") as self.container:
                self.image_views = [ImageView(number, run) for number, run in enumerate(self.runs)]
            rendered = await self._render(self.name, self.view)
            self.sidebar = Sidebar(self.runs, lambda view: self.show(view=view))
            # the browser fetches these while it still reads the page's scripts
            urls = [url for pane in rendered[1].values() for url in pane.urls]
            ui.add_head_html(
                "".join(f'<link rel="preload" as="image" href="{escape(url)}">' for url in urls)
            )
        ui.on("key", lambda event: self._on_key(event.args))
        ui.on("point", lambda event: self._on_point(event.args))
        self._apply(*rendered)
        ui.timer(0.2, self._render_ahead, once=True)

    def _build_bar(self) -> None:
        ui.link("weakmask", grid_url(self.filter, self.view)).classes("brand")
        with ui.element("span"):
            icon_button("chevron_left", lambda: self._step(-1))
            icon_button("chevron_right", lambda: self._step(1))
        self.title = ui.label().props("id=name").style("font-weight:600; overflow-wrap:anywhere")
        self.place = ui.label().classes("muted num")
        self.tags = ui.label().classes("muted")
        ui.element("span").classes("grow")
        if len(self.renderer.runs) > 1:
            ui.select(
                [run.name for run in self.renderer.runs],
                multiple=True,
                label="runs side by side",
                value=[run.name for run in self.runs],
                on_change=lambda e: self._choose_runs(e.value),
            ).props("dense outlined use-chips options-dense").classes("panes-choice")
        icon_button("grid_view", self._leave).tooltip("the grid (g)")
        keys_button(KEYS)

    def _choose_runs(self, names: Sequence[str]) -> None:
        if names:
            self.view = replace(self.view, panes=tuple(names))
            ui.navigate.to(image_url(self.name, self.filter, self.view))

    async def _render(
        self, name: str, view: ViewState
    ) -> tuple[ViewState, dict[str, RenderedPane]]:
        """Render in a thread, so that the server stays responsive."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self.renderer.render, name, view, self.runs)

    async def show(self, name: str | None = None, view: ViewState | None = None) -> None:
        """Show another image or view; of several requests at once the last one wins."""
        self.turn += 1
        turn = self.turn
        self.name, self.view = name or self.name, view or self.view
        self.sidebar.view = self.view
        rendered = await self._render(self.name, self.view)
        if turn == self.turn:
            self._apply(*rendered)
            url = image_url(self.name, self.filter, self.view)
            ui.run_javascript(f"weakmask.address({url!r})")
            ui.timer(0.05, self._render_ahead, once=True)

    def _apply(self, view: ViewState, panes: dict[str, RenderedPane]) -> None:
        """Put what was rendered on the page."""
        self.view, self.panes = view, panes
        image = self.index[self.name]
        self.title.text = self.name
        self.place.text = f"{self.names.index(self.name) + 1} of {len(self.names)}"
        tags = ", ".join(self.index.classes[tag] for tag in image.tags) or "no class"
        self.tags.text = f"{tags} · {image.split} · {image.width} × {image.height}"
        self.container.classes(**{"add" if view.bare else "remove": "bare"})
        for one in self.image_views:
            one.show(panes[one.run.name], view, (image.height, image.width), len(self.runs))
        texts = [text for pane in panes.values() for text in pane.problems]
        self.notices.content = notices(list(dict.fromkeys(texts)))
        self.sidebar.show(self.name, view, panes)

    async def _render_ahead(self) -> None:
        """Render the neighbors, and let the browser fetch them."""
        turn, view = self.turn, self.view
        for distance in AHEAD:
            place = self.names.index(self.name) + distance
            if not 0 <= place < len(self.names) or turn != self.turn:
                continue
            _, panes = await self._render(self.names[place], view)
            urls = [url for pane in panes.values() for url in pane.urls]
            ui.run_javascript(f"weakmask.prefetch({urls!r})")

    async def _step(self, distance: int) -> None:
        place = self.names.index(self.name) + distance
        if 0 <= place < len(self.names):
            await self.show(self.names[place])

    async def _on_key(self, key: str) -> None:
        if key in ("ArrowLeft", "ArrowRight"):
            await self._step(1 if key == "ArrowRight" else -1)
        elif key in ("Home", "End"):
            await self.show(self.names[0 if key == "Home" else -1])
        elif key in ("ArrowUp", "ArrowDown"):
            await self._show_alone(1 if key == "ArrowDown" else -1)
        elif key.isdigit():
            await self.sidebar.toggle(list(LAYERS)[(int(key) - 1) % 10])
        elif key == " ":
            await self.show(view=replace(self.view, bare=not self.view.bare))
        elif key in ("g", "Escape"):
            self._leave()

    async def _show_alone(self, distance: int) -> None:
        """Show the next available layer, without the others."""
        available = {key for pane in self.panes.values() for key in pane.available}
        keys = [key for key in LAYERS if key in available]
        if keys:
            now = [keys.index(key) for key in self.view.layers or {} if key in keys]
            place = (max(now) if distance > 0 else min(now)) + distance if now else 0
            layers = {keys[place % len(keys)]: 1.0}
            await self.show(view=replace(self.view, layers=layers, bare=False))

    def _leave(self) -> None:
        ui.navigate.to(grid_url(self.filter, self.view))

    async def _on_point(self, at: Mapping[str, Any]) -> None:
        """Show what is under the mouse."""
        run = self.runs[int(at["pane"]) % len(self.runs)]
        if self.panes[run.name].exists and 0 <= at["x"] < 1 and 0 <= at["y"] < 1:
            await self.sidebar.show_values(self.renderer.sample(run, self.name), at["x"], at["y"])
