"""Collects what all artifacts hold of one image, for sheets and the report, and which images to
show.

What a report says, in numbers: the ladder of scores, classes, failures, curves, parameters; read
and written as JSON.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipeline.core.artifacts import Reader
from pipeline.data.index import Index
from pipeline.data.masks import read_instances, read_semantic
from pipeline.errors import UserError
from pipeline.instances.base import exclusive_record
from pipeline.views.sheets import Key, legend, panels

PANELS = {
    "cams": {"cams": "cams"},
    "seeds": {"seeds": "seeds"},
    "fields": {"boundary": "boundary", "displacement": "displacement"},
    "walk": {},
    "labels": {"semantic": "pseudo_label", "instances": "instances"},
    "predictions": {"semantic": "prediction", "instances": "predicted_instances"},
}
"""Artifact -> array -> argument of `panels`."""
AGAIN = "`dvc repro` makes it again"
WORST = 0.1
"""Share of the images that counts as the worst ones of a step."""


@dataclass(frozen=True, slots=True)
class Example:
    """One image of the report.

    panels: title -> uint8 [h,w,3] (`sheets.panels`); scores: name -> ratio or None; keys: colored
    class names (`sheets.legend`); note: what to say of it.
    """

    id: str
    panels: Mapping[str, np.ndarray]
    scores: Mapping[str, float | None] = field(default_factory=dict)
    keys: Sequence[Key] = ()
    note: str = ""

    def only(self, titles: Iterable[str]) -> "Example":
        """The same with these panels alone, as far as there are any."""
        kept = {title: self.panels[title] for title in titles if title in self.panels}
        return Example(self.id, kept, self.scores, self.keys, self.note)


@dataclass(frozen=True, slots=True)
class Gallery:
    """All artifacts of a run; `readers` by format, any of which may lack an image; side: the longer
    side of a panel in pixels.
    """

    index: Index
    readers: Mapping[str, Reader]
    side: int = 240

    def example(
        self, name: str, scores: Mapping[str, float | None] | None = None, note: str = ""
    ) -> Example:
        """One image with every panel there is, the truth too where it has masks (to look at, never
        to choose by).
        """
        arguments: dict[str, Any] = {}
        for format_, reader in self.readers.items():
            if name in reader:
                record = exclusive_record(reader[name])
                arguments |= {
                    argument: record[array] for array, argument in PANELS[format_].items()
                }
        if self.index.has_masks(name):
            arguments["truth"] = read_semantic(self.index, name)
        if self.index.has_instances(name):
            arguments["true_instances"] = read_instances(self.index, name)[0]
        maps = [
            arguments[key]
            for key in ("seeds", "pseudo_label", "prediction", "truth")
            if key in arguments
        ]
        drawn = panels(self.index.image(name), **arguments, side=self.side)
        return Example(name, drawn, scores or {}, legend(maps, self.index.classes), note)


def spread(names: Sequence[str], count: int) -> list[str]:
    """`count` of the names at equal distances, so that the choice depends on nothing but the names."""
    if count >= len(names):
        return list(names)
    return [names[(2 * n + 1) * len(names) // (2 * count)] for n in range(count)]


def ranked(scores: Mapping[str, float], worst: int) -> dict[str, list[str]]:
    """Ids of the `worst` images, lowest score first, and of a quarter as many from the middle and
    from the top.

    Ties go by id; no image comes twice.
    """
    order = sorted(scores, key=lambda name: (scores[name], name))
    few, rest = -(-worst // 4), order[worst:]
    highest = rest[max(0, len(rest) - few) :]
    between = rest[: len(rest) - len(highest)]
    start = max(0, min((len(order) - few) // 2 - worst, len(between) - few))
    return {"worst": order[:worst], "median": between[start : start + few], "best": highest[::-1]}


def spoiled(name: str, images: Mapping[str, Mapping[str, float]]) -> str | None:
    """The first step at which an image is among the worst tenth; None where it never is.

    images: step -> id -> score, in the order of the pipeline. Ranks make steps comparable whose
    scores are of other sizes.
    """
    for step, scores in images.items():
        if name in scores and sum(score < scores[name] for score in scores.values()) < WORST * len(
            scores
        ):
            return step
    return None


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a csv file that a stage wrote; none of an empty one. Raises UserError for one that is
    missing, cut off or damaged.

    A cut between two lines leaves a whole table; only DVC, which knows the file's hash, can tell.
    """
    try:
        text = path.read_bytes().decode()
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: no readable table ({error}); {AGAIN}") from error
    if text and not text.endswith("\n"):
        raise UserError(f"{path}: damaged, it ends within a line; {AGAIN}")
    if any(None in row or None in row.values() for row in rows):
        raise UserError(f"{path}: damaged, its rows have other lengths than its header; {AGAIN}")
    return rows


def read_tables(folder: Path) -> dict[str, list[dict[str, str]]]:
    """All csv files of a folder by their names."""
    return {path.stem: read_rows(path) for path in sorted(folder.glob("*.csv"))}


TITLES = {
    "cams": "Activation maps",
    "seeds": "Seeds",
    "walk": "Random walk",
    "labels": "Pseudo-labels",
    "predictions": "Final model",
}
"""The steps, in the order of the pipeline, and what they are called."""

BEFORE = {"seeds": "cams", "walk": "cams", "labels": "walk", "predictions": "labels"}
"""The step that each is measured against: the one before it that, as it does itself, says something
of every pixel.
"""

KINDS = {
    "missed": ("missed objects", "objects: less than a quarter is labeled as anything"),
    "wrong_class": ("wrong class", "objects: labeled, more as other classes than as their own"),
    "bleeding": ("bleeding", "regions at an object of their class: a fifth or more is background"),
    "background_taken": (
        "background taken",
        "regions at no object of their class: half or more is background",
    ),
    "merged": ("merged instances", "instances: half or more of two or more objects in one"),
    "split": ("split instances", "objects: in two or more instances"),
}
"""Kinds of failures: what they are called, and what they are (metrics.failures defines them)."""

FORMAT, VERSION = "weakmask/report", 1
FILE = "report.json"
Table = Sequence[Mapping[str, str]]
Number = float | None
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class ScoredStep:
    """One step: its step, the split and number of its images, and all its scores by name, ratios in
    0..1.
    """

    __pydantic_config__ = STRICT

    step: str
    split: str
    images: int
    scores: dict[str, Number]

    @property
    def miou(self) -> Number:
        """The score it stands for: of maps at their best threshold, which no choice of a threshold
        spoils.
        """
        return self.scores.get("best_miou", self.scores.get("miou"))


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that two reports are compared by.

    classes: step -> class -> `iou`, `AP50` and so on; failures: step -> kind -> `count`, `images`,
    `out_of`; curves: step -> (threshold, mIoU); images: step -> id -> mIoU; parameters: nested;
    versions: package -> version.
    """

    __pydantic_config__ = STRICT

    ladder: list[ScoredStep]
    classes: dict[str, dict[str, dict[str, Number]]] = field(default_factory=dict)
    failures: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    images: dict[str, dict[str, float]] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def scored_step(self, step: str) -> ScoredStep | None:
        """The step of a step, None if it has no scores."""
        return next((scored_step for scored_step in self.ladder if scored_step.step == step), None)

    def gain(self, scored_step: ScoredStep) -> Number:
        """What a step has more than the one it is measured against; None for the first."""
        before = self.scored_step(BEFORE.get(scored_step.step, ""))
        return (
            None
            if before is None or before.miou is None or scored_step.miou is None
            else scored_step.miou - before.miou
        )

    def json(self) -> str:
        """As JSON text, the same for equal content."""
        head = {"format": FORMAT, "version": VERSION}
        return json.dumps({**head, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"


def summarize(
    tables: Mapping[str, Mapping[str, Table]],
    splits: Mapping[str, str],
    parameters: Mapping[str, Any],
    versions: Mapping[str, str],
) -> Summary:
    """The summary of a run; steps without a scored image are left out.

    tables: step -> table -> rows as the stage scores wrote them (`metrics.tables`); splits: step ->
    split of its images.
    """
    scores = {step: _scores(tables[step]["summary"]) for step in TITLES if step in tables}
    scored = [step for step, values in scores.items() if values.get("images")]
    return Summary(
        [
            ScoredStep(
                step, splits.get(step, ""), int(scores[step].pop("images") or 0), scores[step]
            )
            for step in scored
        ],
        {step: _by(tables[step]["classes"], "class") for step in scored},
        {
            step: {
                kind: {key: int(n or 0) for key, n in row.items()} for kind, row in found.items()
            }
            for step in scored
            if (found := _by(tables[step].get("failure_kinds", ()), "kind"))
        },
        {
            step: [(float(row["threshold"]), float(row["miou"])) for row in tables[step]["curve"]]
            for step in scored
            if "curve" in tables[step]
        },
        {
            step: {row["id"]: float(row["miou"]) for row in tables[step]["images"] if row["miou"]}
            for step in scored
        },
        dict(parameters),
        dict(versions),
    )


def load(path: Path) -> Summary:
    """Read what `Summary.json` wrote; raises UserError for a file that is missing, damaged or of
    another version.
    """
    again = "make it again with `dvc repro -f report`"
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        hint = (
            f"the report beside it is an older one; {again}"
            if path.with_name("index.html").is_file()
            else again
        )
        raise UserError(f"{path}: no such file; {hint}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {again}") from error


def parse(text: str, name: str) -> Summary:
    """The summary in a JSON text; `name` is for messages. Raises UserError."""
    again = "make it again with `dvc repro -f report`"
    try:
        content = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{name}: damaged ({error}); {again}") from error
    if content.pop("format", None) != FORMAT:
        raise UserError(f"{name}: not the numbers of a report; {again}")
    if (version := content.pop("version", None)) != VERSION:
        raise UserError(f"{name}: version {version}, this program reads {VERSION}; {again}")
    try:
        return TypeAdapter(Summary).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{name}: damaged ({where}: {first['msg']}); {again}") from error


def _scores(rows: Table) -> dict[str, Number]:
    return {row["score"]: _number(row["value"]) for row in rows}


def _by(rows: Table, key: str) -> dict[str, dict[str, Any]]:
    """Rows by one of their columns, the others as numbers."""
    return {
        row[key]: {name: _number(value) for name, value in row.items() if name != key}
        for row in rows
    }


def _number(text: str) -> Number:
    return float(text) if text else None
