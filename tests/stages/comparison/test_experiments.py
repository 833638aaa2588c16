"""Finished experiments: DVC's list and lock file, and what has changed since."""

from pathlib import Path

from locks import ASKED, lock_of, written
from repositories import commit, run

from stages.comparison import experiments
from stages.comparison.experiments import Experiment


def test_the_list_of_experiments_is_read() -> None:
    text = "main:\n\t1ad9c67 [cam-seed0]\n\t1323357 [cam-seed1]\n641060c:\n\taaaaaaa [cam-seed0]\n"
    assert experiments.parse_list(text) == {
        "main": [("1ad9c67", "cam-seed0"), ("1323357", "cam-seed1")],
        "641060c": [("aaaaaaa", "cam-seed0")],
    }
    assert experiments.parse_list("") == {}


def test_what_a_score_was_made_by() -> None:
    assert experiments.made_by(lock_of(), "scores@labels") == ["scores@labels", "labels", "cams"]
    assert experiments.made_by(lock_of(), "scores@predictions") == []


def test_a_score_left_from_another_run_counts_as_missing() -> None:
    assert experiments.made_by(lock_of(labels_from="c0"), "scores@labels") == []
    assert experiments.made_by(lock_of(labels_from="c0"), "scores@cams") == ["scores@cams", "cams"]


def test_parameters_are_compared_where_they_matter() -> None:
    asked = ASKED | {"labels": {"background": 0.4}, "cams": {"scales": [0.5], "mirror": True, "new": 1}}
    assert experiments.parameter_differences(lock_of(), ["cams"], asked) == ["cams.new missing, now 1"]
    assert experiments.parameter_differences(lock_of(), ["labels"], asked) == [
        "labels.background 0.55, now 0.4"
    ]
    assert experiments.parameter_differences(lock_of(), lock_of(), ASKED) == []


def test_whole_parameter_files_are_compared_but_for_the_machine() -> None:
    other = ASKED | {"runtime": {"device": "cuda"}, "base": {"seed": 1}}
    assert experiments.whole_differences(ASKED, other) == ["base.seed 0, now 1"]


def test_changed_code_is_found(folder: Path) -> None:
    (folder / "used.py").write_text("1")
    (folder / "room").mkdir()
    (folder / "room/inner.py").write_text("1")
    (folder / "other.py").write_text("1")
    commit(folder)
    revision = run(folder, "git", "rev-parse", "HEAD").stdout.strip()
    deps = [written(path, "x") for path in ("used.py", "room", "/elsewhere/pictures", "../up")]
    past = Experiment("cam-seed0", revision, True, {"cams": {"deps": deps}}, {})
    (folder / "other.py").write_text("2")
    assert experiments.changed_files(past, ["cams"]) == []
    (folder / "room/inner.py").write_text("2")
    assert experiments.changed_files(past, ["cams"]) == ["room/inner.py"]
