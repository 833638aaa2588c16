"""Presets: whole parameter files, written as what differs from `presets/base.yaml`.

A preset may name another one that it builds on (`extends: voc12`). Comments of the base are kept in
the merged file; the comment at the head of a preset replaces that of the base.
"""

from collections.abc import Mapping
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML

from pipeline.errors import UserError

FOLDER = Path(__file__).resolve().parents[1] / "presets"
BASE = "base"


def names() -> list[str]:
    """Return the presets that can be chosen, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != BASE)


def load(name: str) -> dict[str, Any]:
    """Return all parameters of a preset as plain values; raise UserError if there is none."""
    return yaml.safe_load(text(name))


@cache
def text(name: str) -> str:
    """Return the whole parameter file of a preset; raise UserError if there is none."""
    if name not in names():
        raise UserError(f"no preset is called {name!r}; choose from {', '.join(names())}")
    return _merged(name)


def replace(whole: str, changes: Mapping[str, Any]) -> str:
    """Return a parameter file with some of its values replaced, comments kept."""
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 4096
    head, body = _split(whole)
    values, stream = editor.load(body), StringIO()
    _update(values, changes)
    editor.dump(values, stream)
    return head + stream.getvalue()


def _merged(name: str) -> str:
    """Return the file of a preset after those that it builds on."""
    own = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    if name == BASE:
        return own
    head, body = _split(own)
    changes = YAML().load(body)
    parent = _merged(changes.pop("extends", BASE))
    return head + _split(replace(parent, changes))[1]


def _split(whole: str) -> tuple[str, str]:
    """Return the comment lines at the head of a file, and the rest."""
    lines = whole.splitlines(keepends=True)
    count = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "".join(lines[:count]), "".join(lines[count:])


def _update(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Replace values in place, those of nested sections one by one."""
    for key, value in changes.items():
        if isinstance(value, Mapping):
            _update(values[key], value)
        else:
            values[key] = value
