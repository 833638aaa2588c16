"""The grid of images: a page of thumbnails at a time, whatever the number of images.

What both pages have in common: style, script, and how keys are written down.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from fastapi import Request
from nicegui import ui

from pipeline.browser.disagreements import Disagreements, pairs
from pipeline.browser.layers import LAYERS
from pipeline.browser.render import Drawings
from pipeline.browser.state import (
    DIFFER,
    GAIN,
    Measures,
    Selection,
    grid_address,
    image_address,
    read_query,
    read_view,
)
from pipeline.errors import UserError
from pipeline.views.report import percent

HERE = Path(__file__).parent


@cache
def _head() -> str:
    style, script = (
        (HERE / name).read_text(encoding="utf-8") for name in ("style.css", "panes.js")
    )
    return f"<style>{style}</style><script>{script}</script>"


def dress() -> None:
    """Style and script of the page being built."""
    ui.add_head_html(_head())
    ui.colors(primary="#2f5d8a")


def notices(texts: list[str]) -> str:
    """Notices as HTML, one below the other."""
    return "".join(f'<p class="notice">{escape(text)}</p>' for text in texts)


def keys_dialog(keys: list[tuple[str, str]]) -> ui.dialog:
    """A dialog that tells the keys: (key, what it does)."""
    with ui.dialog() as dialog, ui.card().classes("keys"):
        rows = "".join(
            f"<tr><td><kbd>{escape(key)}</kbd></td><td>{escape(what)}</td></tr>"
            for key, what in keys
        )
        ui.html(f"<h2>Keys</h2><table>{rows}</table>", sanitize=False)
    return dialog


def dialog_takes(dialog: ui.dialog, key: str) -> bool:
    """Whether a key is the dialog's: `?` opens it; while it is open, `?` and Escape close it and
    all others do nothing.

    That is for the server to say: in the browser a dialog is there until its fading out has ended,
    and would swallow keys.
    """
    if dialog.value:
        if key in ("?", "Escape"):
            dialog.close()
        return True
    if key == "?":
        dialog.open()
    return key == "?"


PAGE = 60
"""Images on a page."""
KEYS = [
    ("← →", "previous, next page"),
    ("Home End", "first, last page"),
    ("/", "search"),
    ("?", "these keys"),
]
SHORT = {
    "cams": "maps",
    "seeds": "seeds",
    "walk": "walk",
    "labels": "labels",
    "predictions": "final",
}
"""What the scores are called on a card."""


def add_grid(drawings: Drawings, disagreements: Disagreements) -> None:
    """Serve the grid at /."""

    @ui.page("/", title="weakmask browse")
    def grid(request: Request) -> None:
        """The page for one visitor."""
        dress()
        try:
            Grid(drawings, disagreements, request.query_params).build()
        except UserError as error:
            ui.html(notices([str(error)]), sanitize=False)


class Grid:
    """One visitor's grid."""

    def __init__(
        self, drawings: Drawings, disagreements: Disagreements, given: Mapping[str, str]
    ) -> None:
        self.drawings, self.selection = drawings, Selection(drawings.runs, disagreements)
        self.run, self.query, self.view = drawings.runs[0], read_query(given), read_view(given)
        self.page = int(given["page"]) if given.get("page", "").isdecimal() else 1
        self.names = self.selection.names(self.query)

    def build(self) -> None:
        """Bar, notices, cards."""
        with ui.element("header").classes("bar"):
            self._bar()
        ui.html(notices(self.selection.problems()), sanitize=False)
        self.cards = ui.html("", sanitize=False)
        self.keys = keys_dialog(KEYS)
        ui.on("key", lambda event: self._key(event.args))
        self.clock = ui.timer(0.5, self._tick, active=False)
        self._show(address=False)

    def _bar(self) -> None:
        index, query = self.run.index, self.query
        ui.html("<span class=brand>weakmask</span>", sanitize=False)
        self.search = (
            ui.input(
                "search id", value=query.text, on_change=lambda e: self._change(text=e.value or "")
            )
            .props("dense outlined clearable debounce=250")
            .classes("search")
        )
        self._select(list(index.classes), "classes", list(query.classes), "classes", multiple=True)
        splits = sorted({image.split for image in index.values()})
        self._select(
            {"": "all splits", **{name: name for name in splits}}, "split", query.split, "split"
        )
        titles = self.selection.titles()
        self._select(titles, "worst first by", query.sort if query.sort in titles else "id", "sort")
        ui.button(
            icon="swap_vert", on_click=lambda: self._change(reverse=not self.query.reverse)
        ).props("flat dense").tooltip("turn the order around")
        self._differ()
        self._range(titles)
        layers = {"image": "the image"} | {
            key: layer.title.lower() for key, layer in LAYERS.items()
        }
        self._select(
            layers, "thumbnails show", query.show if query.show in layers else "image", "show"
        )
        ui.element("span").classes("grow")
        self.progress = ui.linear_progress(0, show_value=False).classes("progress")
        self.count = ui.label().classes("muted num")
        with ui.element("span"):
            ui.button(icon="chevron_left", on_click=lambda: self._turn(self.page - 1)).props(
                "flat dense round"
            )
            ui.button(icon="chevron_right", on_click=lambda: self._turn(self.page + 1)).props(
                "flat dense round"
            )
            ui.button(icon="keyboard", on_click=lambda: self.keys.open()).props("flat dense round")

    def _differ(self) -> None:
        """What is compared with what, where the disagreement is asked for."""
        options = {"-".join(pair): title for pair, title in pairs(self.run).items()}
        chosen = "-".join(self.query.differ)
        if options and chosen not in options:
            chosen = next(iter(options))
            one, other = chosen.split("-")
            self.query = replace(self.query, differ=(one, other))
        self.differ = ui.select(
            options,
            label="between",
            value=chosen if options else None,
            on_change=lambda e: self._change(differ=tuple(e.value.split("-"))),
        ).props("dense outlined options-dense")

    def _range(self, titles: Mapping[str, str]) -> None:
        """The range of a score or of the disagreement that is kept."""
        options = {"": "any score"} | {
            key: title for key, title in titles.items() if key != "id" and not key.startswith(GAIN)
        }
        self._select(options, "only with", self.query.by if self.query.by in options else "", "by")
        with ui.element("div").classes("range num") as self.limits:
            value = {"min": self.query.low, "max": self.query.high}
            ui.range(min=0, max=100, step=1, value=value).props("label dense").on_value_change(
                lambda e: self._change(low=e.value["min"], high=e.value["max"])
            )

    def _select(
        self, options: Any, label: str, value: Any, part: str, *, multiple: bool = False
    ) -> None:
        """A choice of one part of the query."""
        chosen = ui.select(
            options,
            label=label,
            value=value,
            multiple=multiple,
            on_change=lambda e: self._change(**{part: tuple(e.value) if multiple else e.value}),
        )
        chosen.props("dense outlined options-dense" + (" use-chips" if multiple else ""))

    def _change(self, **parts: Any) -> None:
        """Another query: back to the first page."""
        self.query, self.page = replace(self.query, **parts), 1
        self.names = self.selection.names(self.query)
        self._show()

    def _turn(self, page: int) -> None:
        self.page = page
        self._show()

    def _show(self, *, address: bool = True) -> None:
        """Draw the page of cards that is asked for."""
        last = max(1, -(-len(self.names) // PAGE))
        self.page = min(max(1, self.page), last)
        start = (self.page - 1) * PAGE
        shown = self.names[start : start + PAGE]
        total = len(self.run.index)
        place = f"{start + 1}–{start + len(shown)} of {len(self.names)}" if shown else "none"
        self.count.text = place + ("" if len(self.names) == total else f" (of {total})")
        measures = self.selection.measures(self.query)
        cards = "".join(self._card(name, measures) for name in shown)
        empty = '<p class="empty">No image passes this filter.</p>'
        self.cards.content = f'<main class="grid">{cards}</main>' if shown else empty
        asks = DIFFER in (self.query.sort, self.query.by)
        self.differ.visible, self.limits.visible = asks, bool(self.query.by)
        self.clock.active = self.progress.visible = (
            asks and not self.selection.progress(self.query).finished
        )
        if address:
            url = grid_address(self.query, self.view, self.page)
            ui.run_javascript(f"weakmask.address({url!r}); scrollTo(0, 0)")

    def _card(self, name: str, measures: Measures) -> str:
        """An image's card as HTML."""
        image, query = self.run.index[name], self.query
        tags = ", ".join(self.run.index.classes[tag] for tag in image.tags) or "no class"
        numbers = []
        used = (query.sort, query.by)
        for key, values in sorted(measures.values.items(), key=lambda entry: entry[0] not in used):
            if name in values and (key in SHORT or key in used):
                on = ' class="on"' if key in used else ""
                title = SHORT.get(key, "gain" if key.startswith(GAIN) else "differs")
                numbers.append(f"<span{on}>{title} <b>{percent(values[name])}</b></span>")
        source = self.drawings.thumbnail_source(self.run, name, query.show)
        return (
            f'<a class="card" href="{escape(image_address(name, query, self.view))}">'
            f'<img loading="lazy" src="{escape(source)}" alt="cannot be read: see its page">'
            f'<span class="id" title="{escape(name)}">{escape(name)}</span>'
            f'<span class="tags">{escape(tags)} · {escape(image.split)}</span>'
            f'<span class="scores num">{"".join(numbers)}</span></a>'
        )

    def _tick(self) -> None:
        """Follow the computation of disagreements; the order is made when it is complete."""
        progress = self.selection.progress(self.query)
        self.progress.value = progress.done / max(progress.total, 1)
        self.count.text = f"comparing {progress.done} of {progress.total}"
        if progress.finished:
            if progress.problem:
                ui.notify(progress.problem, type="warning", timeout=10_000)
            self.names = self.selection.names(self.query)
            self._show(address=False)

    def _key(self, key: str) -> None:
        pages = {
            "ArrowLeft": self.page - 1,
            "ArrowRight": self.page + 1,
            "Home": 1,
            "End": len(self.names),
        }
        if dialog_takes(self.keys, key):
            return
        if key in pages:
            self._turn(pages[key])
        elif key == "/":
            self.search.run_method("focus")
