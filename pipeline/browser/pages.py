"""What the pages show, as plain values for JSON: the runs, a page of the grid, an image, a pane."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from pipeline.browser.clicks import SPLIT, Clicks, Mark
from pipeline.browser.layers import KEYS, LAYERS, OPAQUE
from pipeline.browser.render import Renderer, layer_url, url
from pipeline.browser.run import JUDGED, SCORED, Run
from pipeline.browser.sample import (
    LABEL_MAPS,
    SLIDERS,
    Sample,
    effective_value,
    live_labels,
    own_value,
    read_settings,
    values_at,
)
from pipeline.browser.sample import WalkSettings as Settings
from pipeline.browser.selection import Selection, failing, read_filter
from pipeline.core.artifacts import IGNORE
from pipeline.errors import UserError
from pipeline.metrics.semantic import ThresholdCurve, threshold_grid
from pipeline.views import overlays, sheets
from pipeline.views.gallery import similar_ids
from pipeline.views.report import percent, plain
from pipeline.views.report_data import KINDS, TITLES, StepScores, changed_values, flat

PAGE = 60
"""Images on a page of the grid."""
FIRST_LAYERS = ("labels", "cams", "seeds", "predictions", "truth")
"""The first of these layers that exists is shown until another one is chosen."""
MASKS = "masks"
"""What thumbnails show by default: the labels or the prediction, whichever the image has."""
Query = Mapping[str, str]


class Pages:
    """Answers the pages' questions about several runs; the images are those of the first."""

    def __init__(self, runs: Sequence[Run], clicks: Clicks | None, picked: Sequence[str]) -> None:
        self.runs, self.first, self.clicks = tuple(runs), runs[0], clicks
        self.renderer, self.selection = Renderer(runs), Selection(runs, picked)

    def runs_data(self, query: Query) -> dict[str, Any]:
        """Return what all pages know: runs, their scores, classes, layers, ways to sort."""
        index, run = self.first.index, self.first
        counts = Counter(tag for image in index.values() for tag in image.tags)
        colors = overlays.palette(len(index.classes)).tolist()
        return {
            "runs": [self._run(one) for one in self.runs],
            "images": len(index),
            "splits": Counter(image.split for image in index.values()),
            "picked": len(self.selection.picked & {*index}),
            "classes": [
                [name, counts[c], overlays.css_color(colors[c])]
                for c, name in enumerate(index.classes)
            ],
            "steps": TITLES,
            "failures": [
                [f"{step}:{kind}", f"{step}: {title}", about, images]
                for step in JUDGED
                for kind, (title, about) in KINDS.items()
                if (images := len(failing(run, f"{step}:{kind}")))
            ],
            "layers": [
                {
                    "key": layer,
                    "letter": letter,
                    "title": LAYERS[layer].title,
                    "about": LAYERS[layer].about,
                    "link": LAYERS[layer].link,
                    "opaque": layer in OPAQUE,
                }
                for letter, layer in KEYS.items()
            ],
            "sorts": self.selection.titles(),
            "sliders": {name: (*one.ends, one.step) for name, one in SLIDERS.items()},
            "differences": self._differences(),
            "problems": list(dict.fromkeys(text for run in self.runs for text in run.problems())),
        }

    def _run(self, run: Run) -> dict[str, Any]:
        steps = [StepScores(step, "", 0, dict(run.scores(step))) for step in SCORED]
        own: dict[str, Any] = {}
        for name in SLIDERS:
            try:
                own[name] = own_value(run, name)
            except UserError:
                continue
        scores = {one.step: one.miou for one in steps if one.miou is not None}
        return {"name": run.name, "scores": scores, "own": own}

    def _differences(self) -> list[list[str]]:
        """Return the parameters in which runs differ from the first: name and a value per run."""
        if len(self.runs) == 1:  # whose parameters may be damaged
            return []
        first, *others = values = [flat(run.parameters) for run in self.runs]
        names = dict.fromkeys(name for own in others for name, *_ in changed_values(first, own))
        return [[name, *(plain(own.get(name)) for own in values)] for name in names]

    def grid(self, query: Query) -> dict[str, Any]:
        """Return a page of cards, its number, and how many images pass the filter."""
        filter_ = read_filter(query)
        names, values = self.selection.names(filter_), self.selection.sort_values(filter_)
        pages = max(1, -(-len(names) // PAGE))
        wanted = int(query["page"]) if query.get("page", "").isdecimal() else 1
        page = min(max(1, wanted), pages)
        shown = names[(page - 1) * PAGE : page * PAGE]
        return {
            "total": len(names),
            "page": page,
            "pages": pages,
            "start": (page - 1) * PAGE + 1,
            "cards": [self._card(name, query.get("show", MASKS), values) for name in shown],
        }

    def _card(self, name: str, show: str, values: Mapping[str, float]) -> dict[str, Any]:
        image, run = self.first.index[name], self.first
        if show == MASKS:
            show = next((step for step in JUDGED if run.holds(step, name)), "")
        scores = {step: [one.miou(step).get(name) for one in self.runs] for step in SCORED}
        return {
            "id": name,
            "tags": [run.index.classes[tag] for tag in image.tags],
            "split": image.split,
            "picked": name in self.selection.picked,
            "image": url("thumbnail", run, name, key="image"),
            "layer": url("thumbnail", run, name, key=show) if show in LAYERS else None,
            "scores": {step: row for step, row in scores.items() if row != [None] * len(row)},
            "value": values.get(name),
        }

    def image(self, query: Query) -> dict[str, Any]:
        """Return the place of an image in the filter's order, its neighbors, and what it is.

        Raises UserError, with similar ids, if there is no such image.
        """
        name, index = query.get("id", ""), self.first.index
        if name not in index:
            similar = ", ".join(similar_ids(list(index), name)) or "none"
            raise UserError(f"There is no image {name!r}; similar ids: {similar}")
        names = self.selection.names(read_filter(query))
        if name not in names:
            names = list(index)
        place, image = names.index(name), index[name]
        sample = self.renderer.sample(self.first, name)
        first = next((key for key in FIRST_LAYERS if LAYERS[key].available(sample)), "")
        return {
            "place": place + 1,
            "total": len(names),
            "next": names[place + 1 : place + 3],
            "previous": names[max(0, place - 1) : place],
            "ends": [names[0], names[-1]],
            "tags": [index.classes[tag] for tag in image.tags],
            "tag_ids": list(image.tags),
            "split": image.split,
            "size": [image.width, image.height],
            "first": first,
            "picked": name in self.selection.picked,
            "marks": self._marks(name) if image.split == SPLIT else None,
        }

    def _marks(self, name: str) -> list[Mark] | None:
        """Return what a person clicked on an image, None where nothing can be (see `pane`)."""
        with suppress(UserError):
            return self.clicks.of(name, self.first.index) if self.clicks else None
        return None

    def save_hints(self, sent: Mapping[str, Any]) -> str:
        """Save the marks of an image as hints; return what to do next. Raises UserError."""
        if self.clicks is None:
            raise UserError("hints: only images of a workspace with a source of its own take them")
        self.clicks.save(sent["id"], sent["marks"], self.first.index)
        return f"saved in {self.clicks.points.parent}; next: dvc repro"

    def pane(self, query: Query) -> dict[str, Any]:
        """Return one run's view of an image: files, scores, legend, problems."""
        run, name = self._run_of(query), query.get("id", "")
        settings, wanted = read_settings(query), query.get("layers", "").split(",")
        problems: list[str] = run.problems()
        pane: dict[str, Any] = {"exists": name in run.index, "problems": problems, "layers": {}}
        if not pane["exists"]:
            return pane
        sample = self.renderer.sample(run, name)
        with _noting(problems):
            if self.clicks:
                self.clicks.of(name, self.first.index)
        with _noting(problems):
            self.renderer.image(run, name)
            pane["image"] = url("image", run, name)
        pane["available"] = [key for key in LAYERS if LAYERS[key].available(sample)]
        for key in (key for key in pane["available"] if key in wanted):
            with _noting(problems):
                self.renderer.layer(run, name, key, settings)
                pane["layers"][key] = layer_url(run, name, key, settings)
        pane["scores"] = {step: run.miou(step).get(name) for step in SCORED}
        if "cams" in pane["layers"]:
            with _noting(problems):
                pane["cams"] = cams_score(sample, settings)
        if {"walk", "relabeled"} & pane["layers"].keys():
            with _noting(problems):
                pane["walk"] = walk_score(sample, settings)
        with _noting(problems):
            maps = [sample.label_map(step) for step in LABEL_MAPS if step in pane["layers"]]
            tagged = np.array([tag + 1 for tag in sample.entry.tags], np.uint8)
            legend = sheets.legend([tagged, *maps], sample.index.classes)
            pane["legend"] = [[label, overlays.css_color(color)] for label, color in legend]
            pane["ignored"] = any((labels == IGNORE).any() for labels in maps)
        return pane

    def values(self, query: Query) -> list[tuple[str, str]]:
        """Return what every artifact holds at a place, in fractions x, y of the image's size."""
        sample = self.renderer.sample(self._run_of(query), query.get("id", ""))
        x, y = (float(query.get(key, "nan")) for key in "xy")
        if not (0 <= x < 1 and 0 <= y < 1):
            return []
        row, column = int(y * sample.size[0]), int(x * sample.size[1])
        return [("pixel", f"{column}, {row}"), *values_at(sample, row, column)]

    def file(self, kind: str, query: Query) -> tuple[bytes, str]:
        """Return an image file and its media type; KeyError or UserError if there is none."""
        run, name, key = self._run_of(query), query.get("id", ""), query.get("key", "image")
        if kind == "image":
            return self.renderer.image(run, name), "image/jpeg"
        if kind == "thumbnail":
            media = "image/jpeg" if key == "image" else "image/png"
            return self.renderer.thumbnail(run, name, key), media
        return self.renderer.layer(run, name, key, read_settings(query)), "image/png"

    def _run_of(self, query: Query) -> Run:
        return self.renderer.runs[query.get("run", "")]


@contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    """Turn an error into a notice, so that everything else is still shown."""
    try:
        yield
    except (UserError, ValueError) as error:
        if str(error) not in problems:
            problems.append(str(error))


def cams_score(sample: Sample, settings: Settings) -> str:
    """Return the mIoU of the activation maps at the chosen threshold, and the best of any."""
    threshold = effective_value(sample, settings, "threshold")
    reached = sample.miou(sample.label_map("cams", threshold))
    if reached is None:
        return "no mask to compare with"
    best_at, best = sample.cached("best threshold", lambda: _best_threshold(sample))
    return f"mIoU {percent(reached)} at {threshold:.2f}; best {percent(best)} at {best_at:.2f}"


def _best_threshold(sample: Sample) -> tuple[float, float]:
    curve = ThresholdCurve(sample.index.classes, threshold_grid())
    curve.add(sample.ground_truth(), *sample.cams())
    return curve.best()


def walk_score(sample: Sample, settings: Settings) -> str:
    """Return the mIoU of the live pseudo-labels, next to that of the stored ones."""
    reached = sample.miou(live_labels(sample, settings)["semantic"])
    if reached is None:
        return "no mask to compare with"
    stored = sample.miou(sample.label_map("labels")) if sample.has("labels") else None
    compared = "" if stored is None else f"; stored labels {percent(stored)}"
    return f"mIoU {percent(reached)}{compared}"
