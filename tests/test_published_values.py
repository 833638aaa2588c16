"""The tables of published values in docs/methods/ agree with the presets.

Under a heading `## Published values: PRESETS` (names in backticks) a table lists each published
hyper-parameter, its value, that of the presets, the source, and why they differ. A name in
backticks is a parameter; the preset's value is read as YAML and compared with the merged preset.
What is no parameter has a plain name.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from pipeline.params import presets

PAGES = sorted((Path(__file__).resolve().parents[1] / "docs/methods").glob("*.md"))
SECTION = re.compile(r"^## Published values: (.+)$\n((?:(?!## ).*\n)*)", re.MULTILINE)
HEADER = ["parameter", "published", "preset", "source", "why it differs"]


class Row(NamedTuple):
    """A row of a table for a preset."""

    preset: str
    name: str
    published: str
    value: str
    source: str
    why: str


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows() -> Iterator[Row]:
    for page in PAGES:
        for heading, body in SECTION.findall(page.read_text(encoding="utf-8")):
            header, _, *lines = (line for line in body.splitlines() if line.startswith("|"))
            assert cells(header) == HEADER, page
            for preset in re.findall(r"`(.+?)`", heading):
                yield from (Row(preset, *cells(line)) for line in lines)


ROWS = list(rows())
PRESETS = sorted({row.preset for row in ROWS})


def test_tables_are_read() -> None:
    assert {"voc12", "coco14"} <= set(PRESETS) <= set(presets.names())
    assert len({(row.preset, row.name) for row in ROWS}) == len(ROWS), "a value is listed twice"


@pytest.mark.defect("sparseinst-9.1")
@pytest.mark.parametrize("preset", PRESETS)
def test_values_are_the_presets_and_differences_have_a_reason(preset: str) -> None:
    values = presets.load(preset)
    for row in (row for row in ROWS if row.preset == preset):
        if row.name.startswith("`"):
            value = values
            for part in row.name.strip("`").split("."):
                value = value[part]
            assert yaml.safe_load(row.value) == value, row
        assert row.source, row
        assert (yaml.safe_load(row.published) != yaml.safe_load(row.value)) == bool(row.why), row
