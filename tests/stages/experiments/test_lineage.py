"""What stages were made from and with, by their lock file."""

import json
from pathlib import Path

import pytest
import yaml

from stages.experiments import cached, lineage
from tests.support.locks import ASKED, lock_of, written


def test_what_a_score_was_made_by() -> None:
    assert lineage.made_by(lock_of(), "scores@labels") == ["scores@labels", "labels", "cams"]
    assert lineage.made_by(lock_of(), "scores@predictions") == []


def test_a_score_left_from_another_run_counts_as_missing() -> None:
    assert lineage.made_by(lock_of(labels_from="c0"), "scores@labels") == []
    assert lineage.made_by(lock_of(labels_from="c0"), "scores@cams") == ["scores@cams", "cams"]


@pytest.mark.parametrize(
    ("listed", "rests"),
    [("i1", ["cams", "dataset"]), ("i2", []), (None, [])],
    ids=["same", "other", "lost"],
)
def test_a_file_in_a_folder_is_looked_up_in_the_list_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str | None, rests: list[str]
) -> None:
    """Stages depend on the dataset's index alone, which DVC keeps in the list of the folder's
    files.
    """
    monkeypatch.setattr(cached, "cache_folder", lambda: tmp_path)
    digests = {"i1": "1" * 32, "i2": "2" * 32}
    lock = {
        "dataset": {"outs": [written("data/dataset", "abc.dir")]},
        "cams": {
            "deps": [written("data/dataset/index.json", digests["i1"])],
            "outs": [written("data/cams.h5", "c1")],
        },
    }
    if listed is not None:
        (tmp_path / "files/md5/ab").mkdir(parents=True)
        files = [
            {"relpath": "images/a.png", "md5": "3" * 32},
            {"relpath": "index.json", "md5": digests[listed]},
        ]
        (tmp_path / "files/md5/ab/c.dir").write_text(json.dumps(files))
    assert lineage.made_by(lock, "cams") == rests


def test_parameters_are_compared_where_they_matter() -> None:
    asked = ASKED | {
        "labels": {"background": 0.4},
        "cams": {"scales": [0.5], "flip": True, "new": 1},
    }
    assert lineage.parameter_differences(lock_of(), ["cams"], asked) == ["cams.new missing, now 1"]
    assert lineage.parameter_differences(lock_of(), ["labels"], asked) == [
        "labels.background 0.55, now 0.4"
    ]
    assert lineage.parameter_differences(lock_of(), lock_of(), ASKED) == []


def test_whole_parameter_files_are_compared_but_for_the_machine() -> None:
    other = ASKED | {"runtime": {"device": "cuda"}, "base": {"seed": 1}}
    assert lineage.whole_differences(ASKED, other) == ["base.seed 0, now 1"]


def test_a_section_is_its_own_stages_and_not_that_of_a_report_made_before() -> None:
    lock = {
        "labels": {"params": {"params.yaml": {"labels": {"background": 0.5}}}},
        "scores@labels": {"params": {"params.yaml": {"scores": {"background": 0.2}}}},
        "classifier": {"params": {"params.yaml": {"classifier.method": "cam"}}},
        "report": {"params": {"params.yaml": {"labels": {"background": 0.1}, "scores": {}}}},
    }
    text = yaml.safe_dump({"stages": lock})
    made = lineage.made_with(
        "labels: {background: 0.3}\nclassifier: {epochs: 3, lr: 1e-05}\n", text
    )
    assert made == {
        "labels": {"background": 0.5},
        "scores": {"background": 0.2},
        "classifier": {"epochs": 3, "lr": 1e-05, "method": "cam"},
    }


@pytest.mark.parametrize(
    ("entry", "key", "value"),
    [
        ("labels", "md5", "other"),
        ("semantic", "md5", "other"),
        ("walk", "params", {"labels": {"background": 0.25}}),
        ("walk", "md5", "same"),
        ("predictions", "params", {"predictions": {"scale": 2}}),
    ],
)
def test_what_is_left_from_another_run_is_told(entry: str, key: str, value: object) -> None:
    """Of labels on which semantic and then predictions rest, and of a score that reads the section
    labels too.
    """
    made = {
        "labels": {"params": {"params.yaml": {"labels": {"background": 0.5}}}, "deps": []},
        "semantic": {"deps": [{"path": "data/labels.h5", "md5": "labels"}]},
        "predictions": {"deps": [{"path": "data/semantic.safetensors", "md5": "semantic"}]},
        "walk": {"params": {"params.yaml": {"labels": {"background": 0.5}}}},
    }
    wrote = {
        "labels": "labels.h5",
        "semantic": "semantic.safetensors",
        "predictions": "p.h5",
        "walk": "walk",
    }
    lock = {
        name: stage | {"outs": [{"path": f"data/{wrote[name]}", "md5": name}]}
        for name, stage in made.items()
    }
    if key == "params":
        lock[entry]["params"] = {"params.yaml": value}
    else:
        lock[entry]["outs"][0]["md5"] = entry if value == "same" else value
    text = yaml.safe_dump({"stages": lock})
    expected = {
        ("labels", "md5"): {"semantic.safetensors", "p.h5"},
        ("semantic", "md5"): {"p.h5"},
        ("walk", "params"): {"walk"},
    }
    left = lineage.outdated(text, lineage.made_with("labels: {background: 0.3}", text))
    assert left == {f"data/{file}" for file in expected.get((entry, key), set())}
