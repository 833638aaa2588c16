"""One run's picture on a picture's page: its layers one above the other, and what is said of it."""

from html import escape

from nicegui import ui

from pipeline.browser.address import View
from pipeline.browser.desk import Drawn
from pipeline.browser.layers import LAYERS, OPAQUE
from pipeline.browser.runs import Run
from pipeline.views.pages import percent


class Pane:
    """One run's picture with its layers one above the other."""

    def __init__(self, number: int, run: Run) -> None:
        self.run = run
        order = sorted(LAYERS, key=lambda key: key not in OPAQUE)
        with ui.element("div").classes("pane"):
            with ui.element("div").classes("title"):
                self.name = ui.html(f"<b>{escape(run.name)}</b>", sanitize=False, tag="span")
                self.scores = ui.label().classes("muted num")
            self.frame = ui.element("div").classes("frame").props(f"data-pane={number}")
            with self.frame, ui.element("div").classes("stack"):
                self.picture = ui.element("img").props('alt="" draggable=false')
                self.layers = {key: self._layer(key) for key in order}
            self.lines = ui.label().classes("lines")

    @staticmethod
    def _layer(key: str) -> ui.element:
        return ui.element("img").classes("layer").props(f'alt="" draggable=false data-layer={key}')

    def show(self, drawn: Drawn, view: View, size: tuple[int, int], panes: int) -> None:
        """Show what was drawn; height and width are the picture's."""
        height, width = size
        rows = 2 if panes > 2 else 1
        self.frame.style(
            f"aspect-ratio: {width} / {height}; width: min(100%, calc((100vh - {130 + 40 * rows}px) / {rows} * {width / height:.4f}))"
        )
        self.frame.visible = drawn.there
        set_source(self.picture, drawn.picture)
        self.picture.style(f"opacity: {view.picture:g}")
        for key, element in self.layers.items():
            set_source(element, drawn.layers.get(key, ""))
            element.style(f"opacity: {(view.layers or {}).get(key, 1):g}")
        stored = [f"{step} {percent(value)}" for step, value in drawn.stored.items() if value is not None]
        self.scores.text = "mIoU: " + " · ".join(stored) if stored else ""
        absent = [] if drawn.there else ["This run has no such picture."]
        lines = [f"{key}: {text}" for key, text in drawn.lines.items()] if panes > 1 else []
        self.lines.text = "; ".join([*absent, *lines])


def set_source(element: ui.element, source: str) -> None:
    """Give an image another source, or none."""
    element.visible = bool(source)
    if source and element.props.get("src") != source:
        element.props["src"] = source
