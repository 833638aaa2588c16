"""The panel beside an image: layers, settings that can be moved, legend, values under the mouse,
parameters.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

from nicegui import ui

from pipeline.browser import readouts
from pipeline.browser.layers import LAYERS
from pipeline.browser.live_walk import PATHS, Settings, own
from pipeline.browser.run import Run
from pipeline.browser.sample import Sample
from pipeline.browser.state import LIMITS, View
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.browser.image_page import ImagePage
    from pipeline.browser.render import Drawn

KNOBS = {
    "threshold": ("threshold", 0.01, 1.0),
    "beta": ("beta", 0.5, 40.0),
    "steps": ("steps", 8, 512),
    "background": ("background", 0.01, 1.0),
}
"""Setting -> title, step and upper end of its slider."""


class Slider(ui.slider):
    """A slider that an answer from the server does not throw back while the hand moves it on."""

    LOOPBACK = False


class Panel:
    """The panel of one page, whose view it changes."""

    def __init__(self, page: "ImagePage", runs: Sequence[Run]) -> None:
        self.page, self.run, self.runs = page, runs[0], runs
        self.boxes: dict[str, ui.checkbox] = {}
        self.sliders: dict[str, Slider] = {}
        self.rows: dict[str, ui.element] = {}
        self.knobs: dict[str, tuple[Slider, ui.label]] = {}
        with ui.element("aside").classes("side"):
            with ui.element("section"):
                self._layers()
            with ui.element("section") as self.map:
                self._map()
            with ui.element("section") as self.cams:
                self._cams()
            with ui.element("section") as self.walk:
                self._walk()
            with ui.element("section"):
                self.legend = ui.html("", sanitize=False)
                self.values = ui.html("", sanitize=False).classes("values num")
            with ui.element("section"):
                self._parameters()

    def _layers(self) -> None:
        with ui.element("div").classes("layerrow"):
            ui.element("span")
            ui.label("Image")
            self.image = Slider(min=0, max=1, step=0.05, value=1)
            self.image.on_value_change(lambda e: self._do(replace(self.page.view, image=e.value)))
        for number, key in enumerate(LAYERS, start=1):
            with ui.element("div").classes("layerrow") as row:
                ui.label(str(number % 10) if number <= 10 else "").classes("digit")
                box = ui.checkbox(LAYERS[key].title).props("dense size=xs")
                box.on_value_change(lambda e, key=key: self.page.switch(key, on=e.value))
                slider = Slider(min=0, max=1, step=0.05, value=1)
                slider.on_value_change(lambda e, key=key: self._opacity(key, e.value))
            self.rows[key], self.boxes[key], self.sliders[key] = row, box, slider

    def _map(self) -> None:
        ui.html("<h2>Class of the maps</h2>", sanitize=False)
        self.classes = ui.select({-1: "all classes, the highest"}, value=-1).props(
            "dense outlined options-dense"
        )
        self.classes.on_value_change(
            lambda e: self._set(class_=None if e.value in (None, -1) else e.value)
        )

    def _cams(self) -> None:
        ui.html("<h2>Activation maps</h2>", sanitize=False)
        self._knob("threshold")
        self.cams_said = ui.label().classes("said num").props("id=cams-score")

    def _walk(self) -> None:
        ui.html("<h2>Random walk</h2>", sanitize=False)
        for name in ("beta", "steps", "background"):
            self._knob(name)
        self.walk_said = ui.label().classes("said num").props("id=walk-score")
        ui.button("the run's own", on_click=self._reset).props("flat dense no-caps size=sm")

    def _knob(self, name: str) -> None:
        title, step, most = KNOBS[name]
        with ui.element("div").classes("knob").props(f"data-knob={name}"):
            ui.label(title)
            slider = Slider(min=LIMITS[name][0], max=most, step=step, value=self._own(name))
            said = ui.label().classes("num")
        slider.on_value_change(lambda e: self._set(**{name: e.value}))
        self.knobs[name] = slider, said

    def _parameters(self) -> None:
        for run in self.runs:
            with ui.expansion(f"Parameters of {run.name}").props("dense"):
                ui.html(
                    f'<pre class="made">{escape(readouts.made_with(run.parameters))}</pre>',
                    sanitize=False,
                )

    def _own(self, name: str) -> Any:
        """The first run's own value of a setting, the lowest one if it has none."""
        try:
            return own(self.run.parameters, *PATHS[name])
        except UserError:
            return LIMITS[name][0]

    def show(self, view: View, drawn: Mapping[str, "Drawn"]) -> None:
        """Show a view; what is moved here and not by hand changes nothing, as the page has that
        view already.
        """
        available = {key for one in drawn.values() for key in one.available}
        layers = view.layers or {}
        self.image.value = view.image
        for key, box in self.boxes.items():
            box.value, self.sliders[key].value = key in layers, layers.get(key, 1)
            box.enabled = key in available
            self.sliders[key].enabled = key in layers and key in available
            self.rows[key].classes(
                replace=" ".join(
                    [
                        "layerrow",
                        *(["absent"] * (key not in available)),
                        *(["off"] * (key not in layers)),
                    ]
                )
            )
        self._show_settings(view.settings)
        self.map.visible = bool({"cams", "walk"} & layers.keys())
        self.cams.visible = "cams" in layers
        self.walk.visible = bool({"walk", "relabeled"} & layers.keys())
        for label, part in ((self.cams_said, "cams"), (self.walk_said, "walk")):
            said = [one.lines[part] for one in drawn.values() if part in one.lines]
            label.text = said[0] if len(said) == 1 else ""
        self._show_legend(drawn)

    def _show_settings(self, settings: Settings) -> None:
        for name, (slider, said) in self.knobs.items():
            chosen = getattr(settings, name)
            slider.value = self._own(name) if chosen is None else chosen
            said.text = f"{slider.value:g}"
        index = self.run.index
        tags = index[self.page.name].tags if self.page.name in index else ()
        options = {-1: "all classes, the highest"} | {tag: index.classes[tag] for tag in tags}
        if settings.class_ is not None and settings.class_ < len(index.classes):
            options[settings.class_] = index.classes[settings.class_]
        self.classes.set_options(
            options, value=-1 if settings.class_ not in options else settings.class_
        )

    def _show_legend(self, drawn: Mapping[str, "Drawn"]) -> None:
        keys = {name: color for one in drawn.values() for name, color in one.legend}
        parts = [
            f'<span><i style="background:{readouts.css(color)}"></i>{escape(name)}</span>'
            for name, color in keys.items()
        ]
        if any(one.ignored for one in drawn.values()):
            light, dark = readouts.HATCH
            stripes = f"repeating-linear-gradient(45deg,{dark} 0 3px,{light} 3px 6px)"
            parts.append(f'<span><i style="background:{stripes}"></i>unsure</span>')
        self.legend.content = f'<div class="legend">{"".join(parts)}</div>'

    async def point(self, shown: Sample, x: float, y: float) -> None:
        """Show the values at a place given in shares of the image's width and height."""
        row, column = int(y * shown.size[0]), int(x * shown.size[1])
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                None, readouts.values_at, shown, row, column
            )
        except (UserError, ValueError):
            found = []
        rows = [("pixel", f"{column}, {row}"), *found]
        self.values.content = "".join(
            f"<span>{escape(title)}</span><span>{escape(text)}</span>" for title, text in rows
        )

    async def _do(self, view: View) -> None:
        if view != self.page.view:
            await self.page.show(view=view)

    async def _opacity(self, key: str, opacity: float) -> None:
        layers = dict(self.page.view.layers or {})
        if key in layers:
            await self._do(replace(self.page.view, layers=layers | {key: opacity}))

    async def _set(self, **parts: Any) -> None:
        """Move a setting; one set to the run's own is no longer chosen."""
        chosen = {
            name: None if name in PATHS and value == self._own(name) else value
            for name, value in parts.items()
        }
        await self._do(replace(self.page.view, settings=replace(self.page.view.settings, **chosen)))

    async def _reset(self) -> None:
        await self._do(
            replace(self.page.view, settings=Settings(class_=self.page.view.settings.class_))
        )
