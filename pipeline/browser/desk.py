"""Everything that a view of a picture needs, drawn ahead of showing it: addresses of layers, words, and what went wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from pipeline.browser import facts
from pipeline.browser.address import FIRST, View
from pipeline.browser.drawings import Drawings
from pipeline.browser.layers import LAYERS
from pipeline.browser.runs import Run
from pipeline.errors import UserError
from pipeline.views.sheets import Key


@dataclass(slots=True)
class Drawn:
    """What one pane shows: sources of the picture and of its layers, lines below it, what went wrong, the words of the panel."""

    picture: str = ""
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
        return [url for url in (self.picture, *self.layers.values()) if url]


class Desk:
    """Draws pictures of the runs that lie beside each other."""

    def __init__(self, drawings: Drawings, runs: Sequence[Run]) -> None:
        self.drawings, self.runs = drawings, runs

    def draw(self, name: str, view: View) -> tuple[View, dict[str, Drawn]]:
        """Everything that a picture's view needs, drawn and kept: so the addresses sent to the page are answered at once."""
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
        drawn.problems += [text for key in run.places.artefacts if (text := run.problem(key))]
        drawn.problems += run.places.lacking.values()
        try:
            shown = self.drawings.shown(run, name)
            self.drawings.picture(run, name)
            drawn.picture = self.drawings.picture_source(run, name)
            drawn.available = frozenset(key for key, layer in LAYERS.items() if layer.available(shown))
        except KeyError:
            drawn.there = False
            return drawn
        except (UserError, ValueError) as error:
            drawn.problems.append(str(error))
            return drawn
        wanted = [key for key in view.layers or {} if key in drawn.available]
        for key in wanted:
            self._attempt(drawn, partial(self._layer, drawn, run, name, key, view))
        self._attempt(drawn, lambda: drawn.stored.update(facts.stored_scores(shown)))
        if "cams" in drawn.layers:
            self._attempt(drawn, lambda: drawn.lines.update(cams=facts.cams_score(shown, view.settings)))
        if {"walk", "relabelled"} & drawn.layers.keys():
            self._attempt(drawn, lambda: drawn.lines.update(walk=facts.walk_score(shown, view.settings)))
        self._attempt(drawn, lambda: drawn.legend.extend(facts.legend(shown, drawn.layers)))
        self._attempt(drawn, lambda: setattr(drawn, "ignored", facts.ignored(shown, drawn.layers)))
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
