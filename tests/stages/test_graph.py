"""dvc.yaml says what the stages really read: their imports, their own section of the parameters,
and nothing of the machine.
"""

import ast
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.metrics.steps import STEPS
from pipeline.params.models import Instance
from pipeline.params.pseudo_labels import Classifier

ROOT = Path(__file__).resolve().parents[2]
NEUTRAL = {
    "pipeline/errors.py",  # messages
    "pipeline/params",  # says what is allowed; the values themselves are tracked
    "pipeline/core/device.py",  # the machine, of which no artifact depends
    "pipeline/core/resume.py",  # where unfinished work lies
    "stages/__init__.py",  # how threads wait
    "stages/_command.py",  # parsing
}
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, dict[str, Any]] = {
    name: stage.get("do", stage) for name, stage in GRAPH["stages"].items()
}
SCORED: dict[str, dict[str, str]] = GRAPH["stages"]["scores"]["foreach"]
CLASSIFIERS = ROOT / "pipeline/classifiers"
PARAMETERS = yaml.safe_load((ROOT / "params.yaml").read_text())


def module_file(name: str) -> Path | None:
    path = ROOT / name.replace(".", "/")
    found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return found if found.is_file() else None


def imports(file: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.split(".")[0] in ("pipeline", "stages") and (found := module_file(name)):
                yield found


def closure(*starts: Path) -> set[str]:
    seen, todo = set[Path](), list(starts)
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo.extend(imports(file))
    code = {file for file in seen if any(map(code_line, file.read_text().splitlines()))}
    return {str(file.relative_to(ROOT)) for file in code if not neutral(file)}


def neutral(file: Path) -> bool:
    """Whether a module, or the package it lies in, cannot change a result."""
    return any(file.is_relative_to(ROOT / path) for path in NEUTRAL)


def code_line(line: str) -> bool:
    """Whether a line can change a result; an __init__.py that only describes its package has none."""
    return bool(re.match(r"(from|import|def|class|[A-Za-z_]+ ?[=:(])", line))


METHODS = sorted(path.name for path in CLASSIFIERS.iterdir() if (path / "network.py").is_file())
INSTANCE_METHODS = typing.get_args(Instance.model_fields["method"].annotation)
ROOMS = {
    "classifier": ("pipeline/classifiers/${classifier.method}", METHODS, "*.py"),
    "cams": ("pipeline/classifiers/${classifier.method}/network.py", METHODS, "network.py"),
}
"""What a stage lists of the chosen method's room, the methods, and which modules of a room it loads
by name.
"""
WHOLE = {"instance": ["sparseinst", "maskrcnn"], "predictions": ["sparseinst", "maskrcnn"]}
"""Rooms that a stage loads by name and lists whichever is chosen, as none may be."""
TEMPLATES = {"report": {f"pipeline/views/{name}.html.j2" for name in ("page", "parts", "report")}}
"""What decides on a page beside modules."""


@pytest.mark.parametrize("name", STAGES)
def test_dependencies_are_the_imported_modules(name: str) -> None:
    """A method's room is listed by the parameter, so that an edit of one method leaves the others
    alone.
    """
    listed = {dep for dep in STAGES[name]["deps"] if dep.startswith(("pipeline/", "stages/"))}
    assert listed - {"${dataset.source}"} == expected(name)


def expected(name: str) -> set[str]:
    """The modules that a stage has to list."""
    own, methods, pattern = ROOMS.get(name, ("", (), ""))
    room = ROOT / re.sub(r"/\$\{.*", "", own)
    files = [file for method in methods for file in (room / method).glob(pattern)]
    files += [
        file for method in WHOLE.get(name, []) for file in (ROOT / "pipeline" / method).glob("*.py")
    ]
    imported = closure(ROOT / f"stages/{name}.py", *files)
    inside = {path for path in imported if set(path.split("/")) & set(methods)}
    return (imported - inside) | ({own} if own else set()) | TEMPLATES.get(name, set())


@pytest.mark.parametrize("method", METHODS)
def test_no_method_imports_another(method: str) -> None:
    others = {other for other in METHODS if other != method}
    imported = closure(*(CLASSIFIERS / method).glob("*.py"))
    assert not {path for path in imported if set(path.split("/")) & others}


@pytest.mark.parametrize("name", STAGES)
def test_one_name_per_step(name: str) -> None:
    assert re.match(rf"\\\$\{{LAUNCH:-python\}} -m stages\.{name}( |$)", STAGES[name]["cmd"])
    assert (ROOT / f"stages/{name}.py").is_file()
    assert name in PARAMETERS or name == "guidance", "which has nothing to set"
    outs = STAGES[name]["outs"]
    assert all(isinstance(out, str) and out.startswith(f"data/{name}") for out in outs), (
        "cached, and under its name"
    )


def test_no_stage_tracks_the_machine() -> None:
    for stage in STAGES.values():
        assert not [name for name in stage["params"] if name.split(".")[0] == "runtime"]
        assert not re.search(r"cuda|cpu|--workers|--device|/home|nproc", stage["cmd"])


def test_every_parameter_belongs_to_a_stage() -> None:
    tracked = {name.split(".")[0] for stage in STAGES.values() for name in stage["params"]} - {
        "${item"
    }
    assert tracked == set(PARAMETERS) - {"runtime"}
    assert {item["section"] for item in SCORED.values()} <= tracked


def test_only_the_chosen_method_is_tracked() -> None:
    assert "classifier.${classifier.method}" in STAGES["classifier"]["params"]
    own = {
        name.partition(".")[2]
        for name in STAGES["classifier"]["params"]
        if name.startswith("classifier.")
    }
    assert own - {"${classifier.method}"} == set(PARAMETERS["classifier"]) - set(METHODS)
    assert set(METHODS) == set(typing.get_args(Classifier.model_fields["method"].annotation))
    own = {
        name.partition(".")[2]
        for name in STAGES["instance"]["params"]
        if name.startswith("instance.")
    }
    assert own - {"${instance.method}"} == set(PARAMETERS["instance"]) - set(INSTANCE_METHODS)


def test_pixel_masks_are_read_by_scores_report_and_the_upper_bound_alone() -> None:
    """Stage dataset checks and indexes them; nothing that learns from tags can see them."""
    readers = {name for name, stage in STAGES.items() if "pipeline/data/masks.py" in stage["deps"]}
    assert readers == {"dataset", "scores", "report", "semantic", "instance"}


def test_every_input_is_somebodys_output() -> None:
    outs = {"data/dataset/index.json"}  # which holds the digests of all that lies beside it
    for name, stage in STAGES.items():
        items = GRAPH["stages"][name].get("foreach", [""])
        for entry in [*stage["outs"], *stage.get("metrics", []), *stage.get("plots", [])]:
            path = entry if isinstance(entry, str) else next(iter(entry))
            outs |= {path.replace("${key}", key) for key in items}
    read = {dep for stage in STAGES.values() for dep in stage["deps"] if dep.startswith("data/")}
    of_scores = {f"data/${{item.{slot}}}.h5": slot for slot in ("reads", "beside")}
    assert of_scores.keys() <= read
    scored = {f"data/{item[slot]}.h5" for item in SCORED.values() for slot in of_scores.values()}
    assert read - of_scores.keys() | scored <= outs


def test_every_step_is_scored_and_reported() -> None:
    """What stage scores takes are the steps; that of the walk rests on two artifacts and on its
    parameters.
    """
    assert list(SCORED) == list(STEPS)
    assert SCORED["walk"] == {"reads": "cams", "beside": "fields", "section": "labels"}
    for name in set(STEPS) - {"walk"}:
        assert SCORED[name] == {"reads": name, "beside": name, "section": "scores"}
    assert {f"data/scores/{name}" for name in STEPS} <= set(STAGES["report"]["deps"])


def test_the_library_knows_no_stage_no_parameter_file_and_no_artifact_path() -> None:
    for file in (ROOT / "pipeline").rglob("*.py"):
        text = file.read_text()
        tree = ast.parse(text)
        strings = [
            n.value
            for n in ast.walk(tree)
            if isinstance(n, ast.Constant) and isinstance(n.value, str)
        ]
        documentation = {
            ast.get_docstring(n, clean=False) for n in ast.walk(tree) if isinstance(n, DOCUMENTED)
        }
        assert not [s for s in strings if s.startswith("data/") and s not in documentation], file
        assert not re.search(r"^\s*(from|import) (stages|dvc)\b", text, re.M), file


DOCUMENTED = (ast.Module, ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)


@pytest.mark.parametrize("room", ["utils", "util", "misc", "common", "helpers", "helper"])
def test_no_room_for_odds_and_ends(room: str) -> None:
    assert not [
        p
        for p in ROOT.glob("*/**/*.py")
        if p.stem == room and p.parts[len(ROOT.parts)] in ("pipeline", "stages")
    ]
