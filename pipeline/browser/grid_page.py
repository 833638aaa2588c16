"""The grid of images: a page of thumbnails at a time, however many images there are.

It also holds the layout that both pages share: style sheet, script, notices and keys.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from fastapi import Request
from nicegui import ui

from pipeline.browser.layers import LAYERS
from pipeline.browser.render import Renderer
from pipeline.browser.selection import (
    GAIN,
    Disagreements,
    Selection,
    SortKeys,
    available_pairs,
)
from pipeline.browser.state import (
    DISAGREEMENT,
    grid_url,
    image_url,
    read_filter,
    read_view,
)
from pipeline.errors import UserError
from pipeline.views.report import percent

FOLDER = Path(__file__).parent
PAGE = 60
"""Images on a page."""
KEYS = [
    ("← →", "previous, next page"),
    ("Home End", "first, last page"),
    ("/", "search"),
]
SHORT_TITLES = {
    "cams": "maps",
    "seeds": "seeds",
    "walk": "walk",
    "labels": "labels",
    "predictions": "final",
}
"""What the scores are called on a card."""


@cache
def _head() -> str:
    style, script = (
        (FOLDER / name).read_text(encoding="utf-8") for name in ("style.css", "app.js")
    )
    return f"<style>{style}</style><script>{script}</script>"


def add_layout() -> None:
    """Add style and script to the page being built."""
    ui.add_head_html(_head())
    ui.colors(primary="#2f5d8a")


def html(content: str = "", **options: Any) -> ui.html:
    """Add HTML whose names are already escaped."""
    return ui.html(content, sanitize=False, **options)


def icon_button(icon: str, on_click: Any) -> ui.button:
    """Add a round button with a Material icon."""
    return ui.button(icon=icon, on_click=on_click).props("flat dense round")


def notices(texts: list[str]) -> str:
    """Return notices as HTML, one below the other."""
    return "".join(f'<p class="notice">{escape(text)}</p>' for text in texts)


def keys_button(keys: list[tuple[str, str]]) -> None:
    """Add a button that lists the keys: (key, what it does)."""
    rows = "".join(
        f"<tr><td><kbd>{escape(key)}</kbd></td><td>{escape(what)}</td></tr>" for key, what in keys
    )
    with icon_button("keyboard", None), ui.menu().classes("keys"):
        html(f"<table>{rows}</table>")


def add_grid_page(renderer: Renderer, disagreements: Disagreements) -> None:
    """Serve the grid at /."""

    @ui.page("/", title="weakmask browse")
    def grid(request: Request) -> None:
        """Build the page for one visitor."""
        add_layout()
        try:
            GridPage(renderer, disagreements, request.query_params).build()
        except UserError as error:
            html(notices([str(error)]))


class GridPage:
    """One visitor's grid."""

    def __init__(
        self, renderer: Renderer, disagreements: Disagreements, url: Mapping[str, str]
    ) -> None:
        self.renderer, self.run = renderer, renderer.runs[0]
        self.selection = Selection(renderer.runs, disagreements)
        self.filter, self.view = read_filter(url), read_view(url)
        self.page = int(url["page"]) if url.get("page", "").isdecimal() else 1
        self.names = self.selection.names(self.filter)

    def build(self) -> None:
        """Build bar, notices and cards."""
        with ui.element("header").classes("bar"):
            self._build_bar()
        html(notices(self.selection.problems()))
        self.cards = html()
        ui.on("key", lambda event: self._on_key(event.args))
        self.timer = ui.timer(0.5, self._compare, active=False)
        self._show(update_url=False)

    def _build_bar(self) -> None:
        index, titles = self.run.index, self.selection.titles()
        html("<span class=brand>weakmask</span>")
        self.search = ui.input(
            "search id",
            value=self.filter.text,
            on_change=lambda e: self._change(text=e.value or ""),
        )
        self.search.props("dense outlined clearable debounce=250").classes("search")
        self._select(
            dict(zip(index.classes, index.classes, strict=True)),
            "classes",
            "classes",
            multiple=True,
        )
        splits = sorted({image.split for image in index.values()})
        self._select({"": "all splits", **dict(zip(splits, splits, strict=True))}, "split", "split")
        self._select(titles, "worst first by", "sort")
        reverse = ui.button(
            icon="swap_vert", on_click=lambda: self._change(reverse=not self.filter.reverse)
        )
        reverse.props("flat dense").tooltip("reverse the order")
        self.pair = self._select(available_pairs(self.run), "between", "differ")
        layers = {key: layer.title.lower() for key, layer in LAYERS.items()}
        self._select({"image": "the image", **layers}, "thumbnails show", "show")
        ui.element("span").classes("grow")
        self.progress = ui.linear_progress(0, show_value=False).classes("progress")
        self.count = ui.label().classes("muted num")
        with ui.element("span"):
            icon_button("chevron_left", lambda: self._turn(self.page - 1))
            icon_button("chevron_right", lambda: self._turn(self.page + 1))
            keys_button(KEYS)

    def _select(
        self, options: Mapping[str, str], label: str, part: str, *, multiple: bool = False
    ) -> ui.select:
        """Build the choice of one part of the filter; an unknown value becomes the first option."""
        value: Any = getattr(self.filter, part)
        if multiple:
            value = [name for name in value if name in options]
        elif value not in options:
            value = next(iter(options), None)
            first: Any = {part: value or ""}
            self.filter = replace(self.filter, **first)
        chosen = ui.select(
            dict(options),
            label=label,
            value=value,
            multiple=multiple,
            on_change=lambda e: self._change(**{part: tuple(e.value) if multiple else e.value}),
        )
        chosen.props("dense outlined options-dense" + (" use-chips" if multiple else ""))
        return chosen

    def _change(self, **parts: Any) -> None:
        """Change the filter and return to the first page."""
        self.filter, self.page = replace(self.filter, **parts), 1
        self.names = self.selection.names(self.filter)
        self._show()

    def _turn(self, page: int) -> None:
        self.page = page
        self._show()

    def _show(self, *, update_url: bool = True) -> None:
        """Show the current page of cards."""
        last = max(1, -(-len(self.names) // PAGE))
        self.page = min(max(1, self.page), last)
        start = (self.page - 1) * PAGE
        names, total = self.names[start : start + PAGE], len(self.run.index)
        place = f"{start + 1}–{start + len(names)} of {len(self.names)}" if names else "none"
        self.count.text = place + ("" if len(self.names) == total else f" (of {total})")
        keys = self.selection.keys(self.filter)
        cards = "".join(self._card(name, keys) for name in names)
        empty = '<p class="empty">No image passes this filter.</p>'
        self.cards.content = f'<main class="grid">{cards}</main>' if names else empty
        self.pair.visible = compares = self.filter.sort == DISAGREEMENT
        running = compares and not self.selection.progress(self.filter).finished
        self.timer.active = self.progress.visible = running
        if update_url:
            url = grid_url(self.filter, self.view, self.page)
            ui.run_javascript(f"weakmask.address({url!r}); scrollTo(0, 0)")

    def _card(self, name: str, keys: SortKeys) -> str:
        """Return an image's card as HTML; the score that sorts comes first."""
        image, sort = self.run.index[name], self.filter.sort
        tags = ", ".join(self.run.index.classes[tag] for tag in image.tags) or "no class"
        scores = []
        for key, values in sorted(keys.values.items(), key=lambda entry: entry[0] != sort):
            if name in values and (key in SHORT_TITLES or key == sort):
                on = ' class="on"' if key == sort else ""
                title = SHORT_TITLES.get(key, "gain" if key.startswith(GAIN) else "differs")
                scores.append(f"<span{on}>{title} <b>{percent(values[name])}</b></span>")
        source = self.renderer.thumbnail_url(self.run, name, self.filter.show)
        return (
            f'<a class="card" href="{escape(image_url(name, self.filter, self.view))}">'
            f'<img loading="lazy" src="{escape(source)}" alt="cannot be read: see its page">'
            f'<span class="id" title="{escape(name)}">{escape(name)}</span>'
            f'<span class="tags">{escape(tags)} · {escape(image.split)}</span>'
            f'<span class="scores num">{"".join(scores)}</span></a>'
        )

    async def _compare(self) -> None:
        """Compute the disagreement for a while and show how far it is; sort once it is complete."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.selection.advance, self.filter)
        progress = self.selection.progress(self.filter)
        self.progress.value = progress.done / max(progress.total, 1)
        self.count.text = f"comparing {progress.done} of {progress.total}"
        if progress.finished:
            if progress.problem:
                ui.notify(progress.problem, type="warning", timeout=10_000)
            self.names = self.selection.names(self.filter)
            self._show(update_url=False)

    def _on_key(self, key: str) -> None:
        pages = {
            "ArrowLeft": self.page - 1,
            "ArrowRight": self.page + 1,
            "Home": 1,
            "End": len(self.names),
        }
        if key in pages:
            self._turn(pages[key])
        elif key == "/":
            self.search.run_method("focus")
