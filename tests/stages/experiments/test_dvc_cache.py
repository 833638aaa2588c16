"""Runs by their lock file: parameters, stale outputs, and places in the cache."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import UserError
from stages.experiments import dvc_cache
from stages.experiments.dvc_cache import (
    CachedRun,
    LockedStage,
    parse_lock,
    run_parameters,
    stale_outputs,
)
from tests.support.locks import lock_of, written
from tests.support.repository import commit, run

PARAMETERS: dict[str, Any] = {
    "base": {"seed": 0},
    "cams": {"scales": [0.5], "flip": True},
    "labels": {"background": 0.55},
    "scores": {"background": 0.1},
}


def stages_of(lock: dict[str, Any]) -> dict[str, LockedStage]:
    return parse_lock(yaml.safe_dump({"stages": lock}))


@pytest.mark.parametrize(
    ("lock", "changed", "stale"),
    [
        (lock_of(), {}, []),
        (lock_of(labels_from="abcd"), {}, ["labels.h5", "scores/labels.json"]),
        (lock_of(), {"base": {"seed": 1}}, ["*"]),
        (lock_of(), {"labels": {"background": 0.4}}, ["labels.h5", "scores/labels.json"]),
        (lock_of(), {"scores": {}}, ["scores/cams.json", "scores/labels.json"]),
        (lock_of(), {"other": 1}, []),
    ],
)
def test_outputs_of_another_run_are_stale(
    lock: dict[str, Any], changed: dict[str, Any], stale: list[str]
) -> None:
    everything = ["cams.h5", "labels.h5", "scores/cams.json", "scores/labels.json"]
    expected = {f"data/{name}" for name in (everything if stale == ["*"] else stale)}
    assert stale_outputs(stages_of(lock), PARAMETERS | changed) == expected


@pytest.mark.parametrize(
    ("listed", "stale"), [("1", False), ("2", True), (None, False)], ids=["same", "other", "lost"]
)
def test_file_in_folder_is_compared_by_folder_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str | None, stale: bool
) -> None:
    """Stages depend on the dataset's index alone, whose digest is in the list of the folder."""
    monkeypatch.setattr(dvc_cache, "cache_folder", lambda: tmp_path)
    lock = {
        "dataset": {"outs": [written("data/dataset", "abc.dir")]},
        "cams": {
            "deps": [written("data/dataset/index.json", 32 * "1")],
            "outs": [written("data/cams.h5", "c1ca")],
        },
    }
    if listed is not None:
        (tmp_path / "files/md5/ab").mkdir(parents=True)
        files = [{"relpath": "index.json", "md5": 32 * listed}]
        (tmp_path / "files/md5/ab/c.dir").write_text(json.dumps(files))
    assert stale_outputs(stages_of(lock), {}) == ({"data/cams.h5"} if stale else set())


def test_cycles_and_long_chains_of_stages_end() -> None:
    def stage(reads: list[int], writes: int) -> dict[str, Any]:
        return {
            "deps": [written(f"d{n}", "aaa") for n in reads],
            "outs": [written(f"d{writes}", "aaa")],
        }

    assert stale_outputs(stages_of({"a": stage([1], 0), "b": stage([0], 1)}), {}) == set()
    chain = {f"s{n}": stage([n - 1] * 3 if n else [], n) for n in range(60)}
    assert stale_outputs(stages_of(chain), {}) == set()


def test_parameters_are_those_each_stage_ran_with() -> None:
    lock = {
        "labels": {"params": {"params.yaml": {"labels": {"background": 0.5}}}},
        "scores@labels": {"params": {"params.yaml": {"scores": {"background": 0.2}}}},
        "classifier": {"params": {"params.yaml": {"classifier.method": "cam"}}},
        "report": {"params": {"params.yaml": {"labels": {"background": 0.1}, "scores": {}}}},
    }
    text = "labels: {background: 0.3}\nclassifier: {epochs: 3, lr: 1e-05}\nscores: {a: 1}\n"
    assert run_parameters(text, stages_of(lock)) == {
        "labels": {"background": 0.5},
        "scores": {"a": 1},
        "classifier": {"epochs": 3, "lr": 1e-05, "method": "cam"},
    }


@pytest.mark.parametrize(
    "text",
    [
        "stages: [",
        "stages: [1]",
        "- 1",
        "stages: {cams: {outs: [{path: a, md5: ../../../etc/passwd}]}}",
        "stages: {cams: {outs: [{md5: abc}]}}",
        "stages: {cams: {deps: 1}}",
    ],
)
def test_damaged_lock_file_is_named(text: str) -> None:
    with pytest.raises(UserError, match=r"^first:dvc\.lock: "):
        parse_lock(text, "first:dvc.lock")


def test_damaged_list_of_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc_cache, "cache_folder", lambda: tmp_path)
    (tmp_path / "files/md5/ab").mkdir(parents=True)
    (tmp_path / "files/md5/ab/c.dir").write_text('[{"relpath": ')
    with pytest.raises(UserError, match="damaged list of data/report"):
        dvc_cache.cached_files(dvc_cache.LockedFile(path="data/report", md5="abc.dir"))


def test_cached_run_says_which_output_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "dvc.lock").write_text(yaml.safe_dump({"stages": lock_of(labels_from="abcd")}))
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMETERS))
    commit(folder)
    monkeypatch.setattr(dvc_cache, "cache_folder", lambda: folder / "cache")
    found = CachedRun("HEAD")
    for path, message in (
        ("data/report", "HEAD: its run wrote no data/report"),
        ("data/labels.h5", "its data/labels.h5 comes from another run"),
        ("data/cams.h5", "data/cams.h5 of HEAD is not in DVC's cache .*`dvc fetch"),
    ):
        with pytest.raises(UserError, match=message):
            found.file(path)
    cached = folder / "cache/files/md5/c1/ca"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert found.file("data/cams.h5") == cached


def test_commits_are_found_by_names_of_experiments(folder: Path) -> None:
    commit(folder)
    start = run(folder, "git", "rev-parse", "HEAD").stdout.strip()
    run(folder, "git", "commit", "-q", "--allow-empty", "-m", "next")
    head = run(folder, "git", "rev-parse", "HEAD").stdout.strip()
    for other, name in ((start, "both"), (head, "both"), (start, "old")):
        run(folder, "git", "update-ref", f"refs/exps/{other[:2]}/{other[2:]}/{name}", other)
    assert dvc_cache.find_commit("HEAD") == head
    assert dvc_cache.find_commit("both") == head, "that of the current commit"
    assert dvc_cache.find_commit("old") == start
    with pytest.raises(UserError, match="of this name; experiments are both, old"):
        dvc_cache.find_commit("--all")
    run(folder, "git", "commit", "-q", "--allow-empty", "-m", "last")
    with pytest.raises(UserError, match=rf"several experiments .* {start[:10]}"):
        dvc_cache.find_commit("both")
