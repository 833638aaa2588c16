"""The typed sections of params.yaml: what may be set, in which unit and range, and where the
default comes from.

Values live in `params.yaml` and the presets alone; the models here only say what is allowed, so
that a wrong name or value ends a run before any work starts (`dvc exp run -S` itself checks no
types).
"""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.errors import UserError
from pipeline.params.images import Base, Dataset, Runtime, Segments
from pipeline.params.maps import Cams, Classifier, Seeds
from pipeline.params.models import Instance, Predictions, Report, Scores, Semantic
from pipeline.params.relations import Fields, Irnet, Labels, Walk
from pipeline.params.section import Section

LONGEST = 400
"""Letters of a wrong value from which on a message leaves its middle out."""


class ParameterError(UserError):
    """A parameter has a wrong name or value; the message names it and says what is allowed."""


class Parameters(Section):
    """All of params.yaml."""

    base: Base
    runtime: Runtime
    dataset: Dataset
    segments: Segments
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
    """Check all parameters and return them typed; `file` is for the message.

    Raises ParameterError that lists every wrong one: for an unknown name the valid names (and the
    nearest), for a wrong value what is allowed.
    """
    try:
        return Parameters.model_validate(values)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
    raise ParameterError(f"{file} is not valid:\n" + "\n".join(f"  {line}" for line in problems))


def _explain(problem: Any) -> str:
    """One line for one of pydantic's problems."""
    path = [str(part) for part in problem["loc"]]
    name = ".".join(path) or "params.yaml"
    if problem["type"] == "extra_forbidden":
        valid = _names(path[:-1])
        near = difflib.get_close_matches(path[-1], valid, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{name}: no such parameter; {hint}valid here: {', '.join(valid)}"
    if problem["type"] == "value_error":
        return f"{name}: {problem['ctx']['error']}"
    if problem["type"] == "missing":
        return f"{name}: missing; set it (the presets show a value)"
    return f"{name}: {problem['msg']}, got {_shorten(problem['input'])}"


def _shorten(value: Any) -> str:
    """A value as in Python, its middle left out where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def _names(path: list[str]) -> list[str]:
    """The valid parameter names of the section at `path`."""
    section: type[BaseModel] = Parameters
    for part in path:
        annotation = section.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        section = annotation
    return sorted(section.model_fields)
