"""The sidebar of an image's page: layers, sliders, legend, values under the mouse, parameters."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import yaml
from nicegui import ui

from pipeline.browser.grid_page import html
from pipeline.browser.layers import LAYERS
from pipeline.browser.render import RenderedPane
from pipeline.browser.run import Run
from pipeline.browser.sample import PATHS, Sample, WalkSettings, values_at
from pipeline.browser.state import SLIDERS, ViewState
from pipeline.errors import UserError
from pipeline.views.overlays import HATCH, css_color

SECTIONS = (
    *("segments", "classifier", "cams", "seeds", "irnet", "fields", "walk", "labels"),
    *("semantic", "instance", "predictions", "scores"),
)
"""Sections of the parameters, in the order of the pipeline."""
ALL_CLASSES = {-1: "all classes, the highest"}
HATCH_CSS = "repeating-linear-gradient(45deg,{1} 0 3px,{0} 3px 6px)".format(*map(css_color, HATCH))


class Slider(ui.slider):
    """A slider that an answer from the server does not move back while it is being dragged."""

    LOOPBACK = False


class Sidebar:
    """The controls of one page; a change by hand calls `on_change` with the new view."""

    def __init__(
        self, runs: Sequence[Run], on_change: Callable[[ViewState], Awaitable[None]]
    ) -> None:
        self.run, self.runs, self.on_change = runs[0], runs, on_change
        self.view = ViewState()
        self.rows: dict[str, tuple[ui.element, ui.checkbox, Slider]] = {}
        self.sliders: dict[str, tuple[Slider, ui.label]] = {}
        with ui.element("aside").classes("side"):
            with ui.element("section"):
                self._build_layers()
            with ui.element("section") as self.map_section:
                html("<h2>Class of the maps</h2>")
                self.classes = ui.select(ALL_CLASSES, value=-1)
                self.classes.props("dense outlined options-dense").on_value_change(
                    lambda e: self._set(class_=None if e.value in (None, -1) else e.value)
                )
            with ui.element("section") as self.cams_section:
                html("<h2>Activation maps</h2>")
                self._build_slider("threshold")
                self.cams_score = ui.label().classes("said num").props("id=cams-score")
            with ui.element("section") as self.walk_section:
                html("<h2>Random walk</h2>")
                for name in ("beta", "steps", "background"):
                    self._build_slider(name)
                self.walk_score = ui.label().classes("said num").props("id=walk-score")
                reset = ui.button("the run's own", on_click=self._reset)
                reset.props("flat dense no-caps size=sm")
            with ui.element("section"):
                self.legend = html()
                self.values = html().classes("values num")
            with ui.element("section"):
                for run in runs:
                    with ui.expansion(f"Parameters of {run.name}").props("dense"):
                        text = parameters_yaml(run.parameters)
                        html(f'<pre class="made">{escape(text)}</pre>')

    def _build_layers(self) -> None:
        with ui.element("div").classes("layerrow"):
            ui.element("span")
            ui.label("Image")
            self.image = Slider(min=0, max=1, step=0.05, value=1)
            self.image.on_value_change(lambda e: self._change(replace(self.view, image=e.value)))
        for number, key in enumerate(LAYERS, start=1):
            with ui.element("div").classes("layerrow") as row:
                ui.label(str(number % 10) if number <= 10 else "").classes("digit")
                box = ui.checkbox(LAYERS[key].title).props("dense size=xs")
                box.on_value_change(lambda e, key=key: self.toggle(key, e.value))
                slider = Slider(min=0, max=1, step=0.05, value=1)
                slider.on_value_change(lambda e, key=key: self._set_opacity(key, e.value))
            self.rows[key] = row, box, slider

    def _build_slider(self, name: str) -> None:
        lowest, highest, step = SLIDERS[name]
        with ui.element("div").classes("knob").props(f"data-knob={name}"):
            ui.label(name)
            slider = Slider(min=lowest, max=highest, step=step, value=self._own(name))
            text = ui.label().classes("num")
        slider.on_value_change(lambda e: self._set(**{name: e.value}))
        self.sliders[name] = slider, text

    def _own(self, name: str) -> Any:
        """Return the first run's own value of a setting, the lowest one if it has none."""
        try:
            return self.run.value(*PATHS[name])
        except UserError:
            return SLIDERS[name][0]

    def show(self, name: str, view: ViewState, panes: Mapping[str, RenderedPane]) -> None:
        """Show the view of an image; moving the controls here triggers no change."""
        self.view = view
        available = {key for pane in panes.values() for key in pane.available}
        layers = view.layers or {}
        self.image.value = view.image
        for key, (row, box, slider) in self.rows.items():
            box.value, slider.value = key in layers, layers.get(key, 1)
            box.enabled = key in available
            slider.enabled = key in layers and key in available
            absent, off = "" if key in available else " absent", "" if key in layers else " off"
            row.classes(replace=f"layerrow{absent}{off}")
        self._show_settings(name, view.settings)
        self.map_section.visible = bool({"cams", "walk"} & layers.keys())
        self.cams_section.visible = "cams" in layers
        self.walk_section.visible = bool({"walk", "relabeled"} & layers.keys())
        for label, part in ((self.cams_score, "cams"), (self.walk_score, "walk")):
            texts = [pane.lines[part] for pane in panes.values() if part in pane.lines]
            label.text = texts[0] if len(texts) == 1 else ""
        self._show_legend(panes)

    def _show_settings(self, name: str, settings: WalkSettings) -> None:
        for setting, (slider, text) in self.sliders.items():
            chosen = getattr(settings, setting)
            slider.value = self._own(setting) if chosen is None else chosen
            text.text = f"{slider.value:g}"
        index, class_ = self.run.index, settings.class_
        tags = index[name].tags if name in index else ()
        options = ALL_CLASSES | {tag: index.classes[tag] for tag in tags}
        if class_ is not None and class_ < len(index.classes):
            options[class_] = index.classes[class_]
        self.classes.set_options(options, value=-1 if class_ not in options else class_)

    def _show_legend(self, panes: Mapping[str, RenderedPane]) -> None:
        keys = {name: css_color(color) for pane in panes.values() for name, color in pane.legend}
        if any(pane.ignored for pane in panes.values()):
            keys["ignored"] = HATCH_CSS
        parts = "".join(
            f'<span><i style="background:{background}"></i>{escape(name)}</span>'
            for name, background in keys.items()
        )
        self.legend.content = f'<div class="legend">{parts}</div>'

    async def show_values(self, sample: Sample, x: float, y: float) -> None:
        """Show the values at a place given as fractions of the image's width and height."""
        row, column = int(y * sample.size[0]), int(x * sample.size[1])
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(None, values_at, sample, row, column)
        except (UserError, ValueError):
            found = []
        self.values.content = "".join(
            f"<span>{escape(title)}</span><span>{escape(text)}</span>"
            for title, text in [("pixel", f"{column}, {row}"), *found]
        )

    async def toggle(self, key: str, on: bool | None = None) -> None:
        """Show or hide a layer; None for the other of the two."""
        layers = dict(self.view.layers or {})
        if on == (key in layers):
            return
        if key in layers:
            del layers[key]
        else:
            layers[key] = 1.0
        await self._change(replace(self.view, layers=layers, bare=False))

    async def _change(self, view: ViewState) -> None:
        if view != self.view:
            await self.on_change(view)

    async def _set_opacity(self, key: str, opacity: float) -> None:
        layers = dict(self.view.layers or {})
        if key in layers:
            await self._change(replace(self.view, layers=layers | {key: opacity}))

    async def _set(self, **parts: Any) -> None:
        """Change a setting; one that equals the run's own is no longer set."""
        chosen = {
            name: None if name in PATHS and value == self._own(name) else value
            for name, value in parts.items()
        }
        settings = replace(self.view.settings, **chosen)
        await self._change(replace(self.view, settings=settings))

    async def _reset(self) -> None:
        settings = WalkSettings(class_=self.view.settings.class_)
        await self._change(replace(self.view, settings=settings))


def parameters_yaml(parameters: Mapping[str, Any]) -> str:
    """Return a run's parameters as YAML, with the options of the chosen methods only."""
    methods = {"cam", "seenet", "puzzlecam", "s2c", "none", "sparseinst", "maskrcnn"}
    chosen: dict[str, Any] = {}
    for name in SECTIONS:
        section = parameters.get(name)
        if isinstance(section, Mapping):
            hidden = methods - {section["method"]} if "method" in section else set()
            chosen[name] = {key: value for key, value in section.items() if key not in hidden}
    return yaml.safe_dump(
        chosen, sort_keys=False, default_flow_style=None, width=60, allow_unicode=True
    )
