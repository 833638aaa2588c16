"""The typed sections of params.yaml: names, units, ranges and the papers' values.

Values are set in `params.yaml` and the presets only; the models here say what is allowed, so that a
wrong name or value ends a run before any work starts (`dvc exp run -S` checks no types).
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.errors import UserError
from pipeline.params.data import Base, Dataset, Runtime, Segments
from pipeline.params.models import Instance, Predictions, Report, Scores, Semantic
from pipeline.params.pseudo_labels import (
    Cams,
    Classifier,
    Fields,
    Hints,
    Irnet,
    Labels,
    Seeds,
    Walk,
)
from pipeline.params.section import Section

MAX_SHOWN = 400
"""Characters of a wrong value above which a message omits the middle."""


class ParameterError(UserError):
    """A parameter with a wrong name or value; the message names it and says what is allowed."""


class Parameters(Section):
    """All of params.yaml."""

    base: Base
    runtime: Runtime
    dataset: Dataset
    segments: Segments
    hints: Hints
    classifier: Classifier
    cams: Cams
    seeds: Seeds
    irnet: Irnet
    fields: Fields
    walk: Walk
    labels: Labels
    semantic: Semantic
    instance: Instance
    predictions: Predictions
    scores: Scores
    report: Report


def parse(values: Mapping[str, Any], file: str = "params.yaml") -> Parameters:
    """Validate all parameters and return them typed.

    Args:
        values: the content of a parameter file.
        file: its name, for the message.

    Raises:
        ParameterError: lists every problem: the valid names (and the nearest one) for an unknown
            name, what is allowed for a wrong value.
    """
    try:
        return Parameters.model_validate(values)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
    raise ParameterError(f"{file} is not valid:\n" + "\n".join(f"  {line}" for line in problems))


def check_names(settings: Iterable[str]) -> None:
    """Check the names of settings `section.name=value`, as DVC's option -S takes them.

    Raises:
        ParameterError: the parameter does not exist; lists the valid names.
    """
    for setting in settings:
        path = setting.partition("=")[0].split(".")
        for depth in range(len(path)):
            if path[depth] not in _names(path[:depth]):
                raise ParameterError(f"-S {setting}: {_unknown(path[: depth + 1])}")


def _explain(problem: Any) -> str:
    """Explain one of pydantic's problems in one line."""
    path = [str(part) for part in problem["loc"]]
    name = ".".join(path) or "params.yaml"
    if problem["type"] == "extra_forbidden":
        return _unknown(path)
    if problem["type"] == "value_error":
        return f"{name}: {problem['ctx']['error']}"
    if problem["type"] == "missing":
        return f"{name}: missing; set it (the presets have a value)"
    return f"{name}: {problem['msg']}, got {_shorten(problem['input'])}"


def _unknown(path: list[str]) -> str:
    """Return what is wrong with the name of a parameter, and the valid ones."""
    valid = _names(path[:-1])
    near = difflib.get_close_matches(path[-1], valid, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{'.'.join(path)}: no such parameter; {hint}valid here: {', '.join(valid) or 'none'}"


def _shorten(value: Any) -> str:
    """Return the repr of a value, without its middle if it is long."""
    text, half = repr(value), MAX_SHOWN // 2
    return text if len(text) <= MAX_SHOWN else f"{text[:half]} ... {text[-half:]}"


def _names(path: list[str]) -> list[str]:
    """Return the valid parameter names of the section at `path`."""
    section: type[BaseModel] = Parameters
    for part in path:
        annotation = section.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        section = annotation
    return sorted(section.model_fields)
