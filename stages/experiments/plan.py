"""What is asked: one run for each method and seed, its name and its parameters."""

import copy
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from pipeline.params import parse
from pipeline.params.pseudo_labels import Classifier
from stages.experiments.repository import PARAMETERS, read_yaml

METHODS: tuple[str, ...] = typing.get_args(Classifier.model_fields["method"].annotation)


@dataclass(frozen=True)
class Run:
    """What is asked of one experiment; parameters: the whole content of params.yaml."""

    name: str
    method: str
    seed: int
    overrides: tuple[str, ...]
    parameters: Mapping[str, Any]


def choose(option: str, values: Iterable[str], valid: Sequence[str]) -> list[str]:
    """The names of comma-separated lists, each once, or all `valid` ones; raises UserError for any
    other.
    """
    chosen = list(
        dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip())
    )
    for name in chosen:
        if name not in valid:
            raise UserError(f"{option}: there is no {name!r}; choose from {', '.join(valid)}")
    return chosen or list(valid)


def experiment_name(prefix: str, method: str, seed: int) -> str:
    """The name of an experiment: `seenet-seed1`, or `PREFIX-seenet-seed1`."""
    return f"{prefix}-{method}-seed{seed}" if prefix else f"{method}-seed{seed}"


def parse_name(prefix: str, name: str) -> tuple[str, int] | None:
    """(method, seed) of an experiment's name; None where it is not one of ours."""
    match = re.fullmatch(
        rf"({'|'.join(METHODS)})-seed(\d+)", name.removeprefix(f"{prefix}-" if prefix else "")
    )
    found = (match[1], int(match[2])) if match else None
    return found if found and experiment_name(prefix, *found) == name else None


def override(parameters: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The parameters with one `section.name=value` set; raises UserError where that is no such
    text.
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)+", key):
        raise UserError(f"-S {text}: must be section.name=value, such as labels.background=0.4")
    if key in ("classifier.method", "base.seed"):
        option = {"classifier.method": "--methods", "base.seed": "--seed"}[key]
        raise UserError(f"-S {text}: {option} says that")
    plain = read_yaml(value, text)
    if isinstance(plain, str) and "," in plain:
        raise UserError(
            f"-S {text}: must be one value; for several run compare once each, with --name"
        )
    changed: Any = copy.deepcopy(dict(parameters))
    section = changed
    *path, last = key.split(".")
    for part in path:
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict):
        raise UserError(f"-S {text}: {PARAMETERS} has no section {'.'.join(path)}")
    section[last] = plain
    return changed


def plan(
    parameters: Mapping[str, Any],
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    prefix: str = "",
    overrides: Sequence[str] = (),
) -> list[Run]:
    """One run for each seed and method, seed by seed, so that pairs are complete early; raises
    UserError for wrong parameters.
    """
    for text in overrides:
        parameters = override(parameters, text)
    runs = []
    for seed in dict.fromkeys(seeds):
        for method in methods:
            own = copy.deepcopy(dict(parameters))
            own["classifier"]["method"], own["base"]["seed"] = method, seed
            parse(own)
            words = (*overrides, f"classifier.method={method}", f"base.seed={seed}")
            runs.append(Run(experiment_name(prefix, method, seed), method, seed, words, own))
    return runs
