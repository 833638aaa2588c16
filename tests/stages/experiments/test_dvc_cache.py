"""Runs by their lock file: parameters, stale outputs, and places in DVC's cache."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import UserError
from stages.experiments.dvc_cache import CachedRun, Stages, run_parameters
from tests.support.repository import commit, run

PARAMETERS: dict[str, Any] = {
    "base": {"seed": 0},
    "cams": {"scales": [0.5], "flip": True},
    "labels": {"background": 0.55},
    "scores": {"background": 0.1},
}
OUTPUTS = {
    "dataset": ("data/dataset", 32 * "d" + ".dir"),
    "cams": ("data/cams.h5", 32 * "c"),
    "labels": ("data/labels.h5", 32 * "1"),
    "scores": ("data/scores/labels.json", 32 * "5"),
}
INDEX = ("data/dataset/index.json", 32 * "e")


def lock_of(**read: tuple[str, str]) -> dict[str, Any]:
    """Return the stages of a lock file; `read` replaces what a stage read."""
    sources = {"cams": INDEX, "labels": OUTPUTS["cams"], "scores": OUTPUTS["labels"]}
    inputs = {name: [source] for name, source in (sources | read).items()}
    parameters: dict[str, dict[str, Any]] = {
        "cams": {"base.seed": 0, "cams": PARAMETERS["cams"]},
        "labels": {"labels": PARAMETERS["labels"]},
        "scores": {"scores": PARAMETERS["scores"], "labels.background": 0.55},
    }
    return {
        name: {
            "cmd": "true",
            "deps": [
                {"path": path, "hash": "md5", "md5": md5} for path, md5 in inputs.get(name, ())
            ],
            "params": {"params.yaml": parameters.get(name, {})},
            "outs": [{"path": path, "hash": "md5", "md5": digest}],
        }
        for name, (path, digest) in OUTPUTS.items()
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty repository."""
    folder = tmp_path_factory.mktemp("empty")
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "init", "-q")
    return folder


@pytest.fixture
def committed(repository: Path, folder: Path) -> Any:
    """A function that commits parameters and a lock file, and returns the run."""
    shutil.copytree(repository, folder, dirs_exist_ok=True)

    def write(lock: dict[str, Any] | str, **changed: Any) -> CachedRun:
        graph = {name: {"cmd": "true", "outs": [path]} for name, (path, _) in OUTPUTS.items()}
        (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": graph}))
        text = lock if isinstance(lock, str) else yaml.safe_dump({"schema": "2.0", "stages": lock})
        (folder / "dvc.lock").write_text(text)
        (folder / "params.yaml").write_text(yaml.safe_dump(PARAMETERS | changed))
        commit(folder)
        return CachedRun("HEAD")

    return write


@pytest.mark.parametrize(
    ("read", "changed", "stale"),
    [
        ({}, {}, []),
        ({}, {"other": 1}, []),
        ({"labels": ("data/cams.h5", 32 * "a")}, {}, ["labels", "scores"]),
        ({}, {"base": {"seed": 1}}, ["cams", "labels", "scores"]),
        ({}, {"labels": {"background": 0.4}}, []),  # labels' own section: as it ran
        ({"cams": ("data/dataset/index.json", 32 * "a")}, {}, ["cams", "labels", "scores"]),
    ],
)
def test_outputs_of_another_run_are_stale(
    folder: Path, committed: Any, read: Any, changed: dict[str, Any], stale: list[str]
) -> None:
    """Stages depend on the dataset's index alone, whose digest is in the list of the folder."""
    listed = folder / ".dvc/cache/files/md5/dd" / (30 * "d" + ".dir")
    listed.parent.mkdir(parents=True)
    listed.write_text(json.dumps([{"relpath": "index.json", "md5": INDEX[1]}]))
    found = committed(lock_of(**read), **changed)
    assert found.stale == {OUTPUTS[name][0] for name in stale}


def test_parameters_are_those_each_stage_ran_with() -> None:
    lock: Stages = {
        "labels": {"params": {"params.yaml": {"labels": {"background": 0.5}}}},
        "scores@labels": {"params": {"params.yaml": {"scores": {"background": 0.2}}}},
        "classifier": {"params": {"params.yaml": {"classifier.method": "cam"}}},
        "report": {"params": {"params.yaml": {"labels": {"background": 0.1}, "scores": {}}}},
    }
    text = "labels: {background: 0.3}\nclassifier: {epochs: 3, lr: 1e-05}\nscores: {a: 1}\n"
    text += "runtime: {device: cpu}\n"
    assert run_parameters(text, lock) == {
        "labels": {"background": 0.5},
        "scores": {"a": 1},
        "classifier": {"epochs": 3, "lr": 1e-05, "method": "cam"},
    }
    for damaged in ("a: !!python/name:os.mkdir", "a: \0", "a: ["):
        with pytest.raises(UserError, match=r"^v1:params\.yaml: not valid YAML"):
            run_parameters(damaged, {}, "v1:")


@pytest.mark.parametrize("text", ["stages: [", "schema: '2.0'\nstages: [1]", "- 1"])
def test_damaged_lock_file_is_named(committed: Any, text: str) -> None:
    with pytest.raises(UserError, match=r"^HEAD: .*dvc\.lock"):
        committed(text)


def test_run_says_which_output_is_missing(folder: Path, committed: Any) -> None:
    lock = lock_of(scores=("data/labels.h5", 32 * "a"))
    del lock["labels"]
    found = committed(lock)
    for path, message in (
        ("data/report", "HEAD: its run wrote no data/report"),
        ("data/labels.h5", "HEAD: its run wrote no data/labels.h5"),
        ("data/dataset/index.json", "index.json of HEAD is not in DVC's cache"),
        ("data/cams.h5", "data/cams.h5 of HEAD is not in DVC's cache.*`dvc fetch"),
    ):
        with pytest.raises(UserError, match=message):
            found.file(path)
    cached = folder / ".dvc/cache/files/md5/cc" / (30 * "c")
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert found.file("data/cams.h5") == cached
