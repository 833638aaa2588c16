"""Collects what all artefacts hold of one picture, for sheets and the report, and which pictures to show."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets.index import Index
from pipeline.datasets.masks import read_instances, read_semantic
from pipeline.errors import UserError
from pipeline.instances.masks import exclusive_record
from pipeline.store import Reader
from pipeline.views.sheets import Key, legend, panels

PANELS = {
    "cams": {"cams": "cams"},
    "seeds": {"seeds": "seeds"},
    "fields": {"boundary": "boundary", "displacement": "displacement"},
    "labels": {"semantic": "pseudo_label", "instances": "instances"},
    "predictions": {"semantic": "prediction", "instances": "predicted_instances"},
}
"""Artefact -> array -> argument of `panels`."""
AGAIN = "`dvc repro` makes it anew"
WORST = 0.1
"""Share of the pictures that counts as the worst ones of a step."""


@dataclass(frozen=True, slots=True)
class Example:
    """One picture of the report.

    panels: title -> uint8 [h,w,3] (`sheets.panels`); scores: name -> ratio or None; keys: coloured class
    names (`sheets.legend`); note: what to say of it.
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
    """All artefacts of a run; `readers` by format, any of which may lack a picture; side: the longer side of a panel in pixels."""

    index: Index
    readers: Mapping[str, Reader]
    side: int = 240

    def example(self, name: str, scores: Mapping[str, float | None] | None = None, note: str = "") -> Example:
        """One picture with every panel there is, the truth too where it has masks (to look at, never to choose by)."""
        arguments: dict[str, Any] = {}
        for format_, reader in self.readers.items():
            if name in reader:
                record = exclusive_record(reader[name])
                arguments |= {argument: record[array] for array, argument in PANELS[format_].items()}
        if self.index.has_masks(name):
            arguments["truth"] = read_semantic(self.index, name)
        if self.index.has_instances(name):
            arguments["true_instances"] = read_instances(self.index, name)[0]
        maps = [
            arguments[key] for key in ("seeds", "pseudo_label", "prediction", "truth") if key in arguments
        ]
        drawn = panels(self.index.image(name), **arguments, side=self.side)
        return Example(name, drawn, scores or {}, legend(maps, self.index.classes), note)


def spread(names: Sequence[str], count: int) -> list[str]:
    """`count` of the names at equal distances, so that the choice depends on nothing but the names."""
    if count >= len(names):
        return list(names)
    return [names[(2 * n + 1) * len(names) // (2 * count)] for n in range(count)]


def ranked(scores: Mapping[str, float], worst: int) -> dict[str, list[str]]:
    """Ids of the `worst` pictures, lowest score first, and of a quarter as many from the middle and from the top.

    Ties go by id; no picture comes twice.
    """
    order = sorted(scores, key=lambda name: (scores[name], name))
    few, rest = -(-worst // 4), order[worst:]
    highest = rest[max(0, len(rest) - few) :]
    between = rest[: len(rest) - len(highest)]
    start = max(0, min((len(order) - few) // 2 - worst, len(between) - few))
    return {"worst": order[:worst], "median": between[start : start + few], "best": highest[::-1]}


def spoilt(name: str, pictures: Mapping[str, Mapping[str, float]]) -> str | None:
    """The first step at which a picture is among the worst tenth; None where it never is.

    pictures: step -> id -> score, in the order of the pipeline. Ranks make steps comparable whose scores are of other sizes.
    """
    for step, scores in pictures.items():
        if name in scores and sum(score < scores[name] for score in scores.values()) < WORST * len(scores):
            return step
    return None


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a csv file that a stage wrote; none of an empty one. Raises UserError for one that is missing, cut off or damaged.

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
