"""What the stages in a lock file were made from and with: lineage of artifacts, and where
parameters differ.

https://dvc.org/doc/user-guide/project-structure/dvcyaml-files#dvclock-file
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from stages.experiments.cached import Out, digest_in, mapping_of, stages_of
from stages.experiments.repository import PARAMETERS


def made_by(lock: Mapping[str, Any], stage: str) -> list[str]:
    """The stages whose work `stage` rests on, itself included; none where it did not run in this
    experiment.

    An experiment starts from the dvc.lock of its commit, so an entry may be left from another run:
    its dependencies then are not what the stages before it wrote.
    """
    wrote = {
        out["path"]: (name, out) for name, entry in lock.items() for out in entry.get("outs", [])
    }
    return _made_by(lock, stage, wrote, {})


def _made_by(
    lock: Mapping[str, Any],
    stage: str,
    wrote: Mapping[str, tuple[str, Out]],
    known: dict[str, list[str]],
) -> list[str]:
    """See made_by; `wrote` is path -> (stage, output), `known` what was found before, nothing for
    stages in a ring.
    """
    if stage not in lock or stage in known:
        return known.get(stage, [])
    known[stage] = []
    stages = [stage]
    for dependency in lock[stage].get("deps", []):
        path = PurePosixPath(dependency["path"])
        holder = next((str(place) for place in (path, *path.parents) if str(place) in wrote), None)
        if holder is not None:
            name, out = wrote[holder]
            same = digest_in(out, path) == dependency.get("md5")
            before = _made_by(lock, name, wrote, known) if same else []
            if not before:
                return []
            stages += [other for other in before if other not in stages]
    known[stage] = stages
    return stages


def made_with(parameters: str, lock: str) -> Mapping[str, Any]:
    """Parameters by section: those of the parameter file, or where a stage ran the ones that it ran
    with.

    A section is its stage's own; others that track it too, such as the report, may have run before
    it last.
    """
    values: dict[str, Any] = mapping_of(parameters)
    for name, stage in stages_of(lock).items():
        for key, value in stage.get("params", {}).get(PARAMETERS, {}).items():
            *sections, last = key.split(".")
            if key.split(".")[0] != name.partition("@")[0]:
                continue
            section = values
            for part in sections:
                if not isinstance(section.get(part), dict):
                    section[part] = {}
                section = section[part]
            section[last] = value
    return values


def outdated(lock: str, parameters: Mapping[str, Any]) -> set[str]:
    """The outputs of a lock file's text that are left from another run, as those beyond the target
    of an experiment are.

    They, or what they were made from, rest on other artifacts or on other parameters of another
    stage than the run's (see made_with).
    """
    stages = stages_of(lock)
    other = {name for name in stages if _others_differ(name, stages, parameters)}
    left = [
        stage
        for name, stage in stages.items()
        if not (made := made_by(stages, name)) or other & set(made)
    ]
    return {out["path"] for stage in left for out in stage.get("outs", [])}


def _others_differ(name: str, stages: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    """Whether a stage read parameters of another stage that are not those that one ran with."""
    sections = {other.partition("@")[0] for other in stages} - {name.partition("@")[0]}
    read = stages[name].get("params", {}).get(PARAMETERS, {})
    others = {key: value for key, value in read.items() if key.split(".")[0] in sections}
    return bool(parameter_differences({name: {"params": {PARAMETERS: others}}}, [name], parameters))


def parameter_differences(
    lock: Mapping[str, Any], stages: Iterable[str], parameters: Mapping[str, Any]
) -> list[str]:
    """Where the parameters these stages ran with are not those given, as `name 0.55, now 0.4`."""
    found: dict[str, None] = {}
    for stage in stages:
        for key, value in lock[stage].get("params", {}).get(PARAMETERS, {}).items():
            found |= dict.fromkeys(_differences(key, value, _look_up(parameters, key)))
    return list(found)


def whole_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Where two parameter files differ, but for section runtime, on which no artifact depends."""
    sections = dict.fromkeys([*old, *new])
    return [
        text
        for name in sections
        if name != "runtime"
        for text in _differences(name, old.get(name), new.get(name))
    ]


def _look_up(parameters: Mapping[str, Any], key: str) -> Any:
    value: Any = parameters
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _differences(name: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = dict.fromkeys([*old, *new])
        return [
            text
            for key in keys
            for text in _differences(f"{name}.{key}", old.get(key), new.get(key))
        ]
    return [] if old == new else [f"{name} {_shown(old)}, now {_shown(new)}"]


def _shown(value: Any) -> str:
    return "missing" if value is None else json.dumps(value)
