"""dvc.yaml lists what the stages read: their code, their parameters, nothing of the machine."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.metrics.steps import STEPS

ROOT = Path(__file__).resolve().parents[2]
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, dict[str, Any]] = {
    name: stage.get("do", stage) for name, stage in GRAPH["stages"].items()
}
PARAMETERS = yaml.safe_load((ROOT / "params.yaml").read_text())
METHODS = {"classifier": "pipeline/classifiers", "instance": "pipeline/instances"}
"""Sections that choose a method, and the package in which each method has a package."""
NEUTRAL = (
    "pipeline/errors.py",  # messages
    "pipeline/params",  # what is allowed; the values themselves are tracked
    "pipeline/instances/__init__.py",  # the choice of a method is a tracked parameter
    "stages/_command.py",  # parsing
)
"""Code that cannot change a result, besides packages' docstrings and the methods not chosen."""
BY_IMAGE = ("segments", "features", "cams", "seeds", "fields", "walk", "labels", "predictions")
FILES_MAX = 18
"""Files of this project that a per-image stage may import, directly or not, other methods aside."""
UNUSED = {"pipeline/nets/wrn38.py", "pipeline/core/trainer.py", "pipeline/core/loss_log.py"}
"""Not among them: another network, and what _command.py loads in stages that train."""
TRUTH = "pipeline/data/masks.py"
TRUTH_READERS = (
    "pipeline/readers",  # checks and indexes them
    "pipeline/metrics",
    "pipeline/views",
    "pipeline/browser",
    "stages/scores.py",
    "stages/report.py",
    "stages/cli",
    "stages/semantic.py",  # supervision: truth
    "stages/instance.py",  # supervision: truth
)


def module_file(name: str) -> Path | None:
    path = ROOT / name.replace(".", "/")
    found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return found if found.is_file() else None


@cache
def nodes(file: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(file.read_text())))


@cache
def imports(file: Path) -> list[Path]:
    """Return the files of this project that a file imports, anywhere but under TYPE_CHECKING."""
    names: list[str] = []
    typing = {
        inner
        for node in nodes(file)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in node.body
    }
    for node in nodes(file):
        if node in typing:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    ours = [name for name in names if name.split(".")[0] in ("pipeline", "stages")]
    return [found for name in ours if (found := module_file(name))]


def within(file: str, folders: tuple[str, ...] | list[str]) -> bool:
    return any(file == folder or file.startswith(f"{folder}/") for folder in folders)


@cache
def closure(name: str) -> set[str]:
    """Return the files that stage `name` imports, directly or not, methods that register aside."""
    seen, todo = set[Path](), [ROOT / f"stages/{name}.py"]
    while todo:
        file = todo.pop()
        if file not in seen and not _other_method(name, file):
            seen.add(file)
            todo.extend(imports(file))
    files = {str(file.relative_to(ROOT)) for file in seen if file.name != "__init__.py"}
    return {file for file in files if not within(file, NEUTRAL)}


def _other_method(stage: str, file: Path) -> bool:
    """Return whether a file belongs to a method that is tracked by the parameter choosing it."""
    path = str(file.relative_to(ROOT))
    chosen = [dep for dep in STAGES[stage]["deps"] if "${" in dep]
    packages = [
        package
        for section, package in METHODS.items()
        if any(dep.startswith(package) for dep in chosen)
        for method in PARAMETERS[section]
        if path.startswith((f"{package}/{method}/", f"{package}/{method}.py"))
    ]
    return bool(packages)


def code_deps(name: str) -> list[str]:
    """Return the code that a stage lists, but for what a parameter chooses."""
    deps: list[str] = STAGES[name]["deps"]
    return [dep for dep in deps if not dep.startswith("data/") and "${" not in dep]


@pytest.mark.parametrize("name", STAGES)
def test_one_name_per_step(name: str) -> None:
    assert re.match(rf"\\\$\{{LAUNCH:-python\}} -m stages\.{name}( |$)", STAGES[name]["cmd"])
    assert STAGES[name]["desc"]
    assert (ROOT / f"stages/{name}.py").is_file()
    assert name in PARAMETERS or name in ("guidance", "features"), "which have nothing to set"
    outs = STAGES[name]["outs"]
    assert all(isinstance(out, str) and out.startswith(f"data/{name}") for out in outs), "cached"


def test_every_file_of_stages_is_a_stage() -> None:
    names = {path.stem for path in (ROOT / "stages").glob("*.py")}
    assert names == set(STAGES) | {"__init__", "_command"}


@pytest.mark.parametrize("name", STAGES)
def test_imported_code_is_listed_and_listed_code_exists(name: str) -> None:
    assert not [dep for dep in code_deps(name) if not (ROOT / dep).exists()]
    listed = [*code_deps(name), *NEUTRAL]
    assert not {file for file in closure(name) if not within(file, listed)}


@pytest.mark.parametrize("name", BY_IMAGE)
def test_per_image_stages_import_few_files(name: str) -> None:
    assert len(closure(name) - UNUSED) <= FILES_MAX


@pytest.mark.parametrize("section", METHODS)
def test_only_the_chosen_method_is_tracked(section: str) -> None:
    tracked = [name for name in STAGES[section]["params"] if name.startswith(f"{section}.")]
    own = {name.partition(".")[2] for name in tracked} - {f"${{{section}.method}}"}
    methods = set(PARAMETERS[section]) - own
    assert f"{section}.${{{section}.method}}" in tracked
    assert PARAMETERS[section]["method"] in methods
    for method in methods:
        assert (ROOT / METHODS[section] / method).exists() or method == "none", method


@pytest.mark.defect("puzzlecam-3")
def test_ground_truth_is_read_by_scores_report_and_truth_alone() -> None:
    """Stage dataset checks and indexes masks; what learns from tags cannot see them."""
    files = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]
    readers = {
        str(file.relative_to(ROOT)) for file in files if ROOT / TRUTH in set(imports(file))
    } - {TRUTH}
    assert not {file for file in readers if not within(file, list(TRUTH_READERS))}
    blind = set(STAGES) - {"dataset", "scores", "report", "semantic", "instance"}
    decoding = {name for name in blind if TRUTH in closure(name)}
    assert decoding == {"hints"}, "whose masks are decoded likewise"
    for file in ("stages/hints.py", "pipeline/readers/hints.py"):
        assert not re.search(r"read_semantic|read_instances", (ROOT / file).read_text())


def test_every_section_is_tracked_but_that_of_the_machine() -> None:
    for stage in STAGES.values():
        assert not re.search(r"cuda|cpu|--workers|--device|/home|nproc", stage["cmd"])
    tracked = {name.split(".")[0] for stage in STAGES.values() for name in stage["params"]}
    assert {name for name in tracked if not name.startswith("$")} == set(PARAMETERS) - {"runtime"}


def test_every_input_is_an_output() -> None:
    outs, read = {"data/dataset/index.json"}, set[str]()  # holds the digests of all next to it
    for name, stage in STAGES.items():
        for item in GRAPH["stages"][name].get("foreach", [""]):
            entries = [*stage["outs"], *stage.get("metrics", []), *stage.get("plots", [])]
            paths = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
            outs |= {path.replace("${key}", item) for path in paths}
            read |= {dep.replace("${key}", item) for dep in stage["deps"]}
    folders = {str(Path(out).parent) for out in outs}  # data/scores, data/curves
    assert {dep for dep in read if dep.startswith("data/")} <= outs | folders


def test_the_classifier_sees_the_segments_through_guidance_alone() -> None:
    """Or every method would train again when they change."""
    assert "data/guidance.h5" in STAGES["classifier"]["deps"]
    assert [name for name in STAGES if "data/segments.h5" in STAGES[name]["deps"]] == [
        "guidance",
        "hints",
        "labels",
        "semantic",
    ]


def test_trust_in_hints_reruns_seeds_and_what_follows_their_weight_the_final_models() -> None:
    """And nothing but the hints of a source makes data/hints.h5."""
    tracking = {
        key: [name for name in STAGES if {"hints", f"hints.{key}"} & {*STAGES[name]["params"]}]
        for key in ("trust", "weight")
    }
    assert tracking == {
        "trust": ["seeds", "walk", "labels", "semantic", "report"],
        "weight": ["semantic", "instance", "report"],
    }
    reading = {name for name in STAGES if "data/hints.h5" in STAGES[name]["deps"]}
    assert reading == {"seeds", "walk", "labels", "semantic", "instance", "scores"}


def test_every_step_is_scored_and_reported() -> None:
    assert GRAPH["stages"]["scores"]["foreach"].keys() == STEPS.keys()
    assert set(STEPS) <= set(STAGES)
    assert "data/scores" in STAGES["report"]["deps"]


@pytest.mark.defect("s2c-8")
def test_the_library_knows_no_stage_and_no_artifact_path() -> None:
    for file in (ROOT / "pipeline").rglob("*.py"):
        documentation = {
            ast.get_docstring(node, clean=False)
            for node in nodes(file)
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
        }
        strings = [node.value for node in nodes(file) if isinstance(node, ast.Constant)]
        paths = [text for text in strings if isinstance(text, str) and text.startswith("data/")]
        assert not [text for text in paths if text not in documentation], file
        assert not re.search(r"^\s*(from|import) (stages|dvc)\b", file.read_text(), re.M), file


def test_no_package_for_odds_and_ends() -> None:
    names = {"utils", "util", "misc", "common", "helpers", "helper"}
    files = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]
    assert not [file for file in files if file.stem in names or file.parent.name in names]
