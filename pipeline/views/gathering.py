"""Collects what all artefacts hold of one picture, for sheets and the report."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.datasets.index import Index
from pipeline.datasets.masks import read_instances, read_semantic
from pipeline.instances.masks import exclusive_record
from pipeline.store import Reader
from pipeline.views.report import Example
from pipeline.views.sheets import legend, panels

PANELS = {
    "cams": {"cams": "cams"},
    "seeds": {"seeds": "seeds"},
    "fields": {"boundary": "boundary", "displacement": "displacement"},
    "labels": {"semantic": "pseudo_label", "instances": "instances"},
    "predictions": {"semantic": "prediction", "instances": "predicted_instances"},
}
"""Artefact -> array -> argument of `panels`."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """All artefacts of a run; `readers` by format, any of which may lack a picture."""

    index: Index
    readers: Mapping[str, Reader]

    def example(self, name: str, scores: Mapping[str, float | None] | None = None) -> Example:
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
        drawn = panels(self.index.image(name), **arguments)
        return Example(name, drawn, scores or {}, legend(maps, self.index.classes))


def spread(names: Sequence[str], count: int) -> list[str]:
    """`count` of the names at equal distances, so that the choice depends on nothing but the names."""
    if count >= len(names):
        return list(names)
    return [names[(2 * n + 1) * len(names) // (2 * count)] for n in range(count)]


def worst_rows(rows: Sequence[Mapping[str, str]], count: int) -> list[Mapping[str, str]]:
    """The rows of a per-picture table with the lowest mIoU, lowest first; rows without a score are left out."""
    return sorted((row for row in rows if row["miou"]), key=lambda row: (float(row["miou"]), row["id"]))[
        :count
    ]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a csv file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_scores(path: Path) -> dict[str, Any]:
    """The scores of one artefact as the stage scores wrote them."""
    return dict(json.loads(path.read_text(encoding="utf-8")))
