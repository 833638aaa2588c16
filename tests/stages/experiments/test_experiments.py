"""Finished experiments: DVC's list and lock file, and what has changed since."""

from pathlib import Path

from stages.experiments import experiments
from stages.experiments.experiments import Experiment
from tests.support.locks import written
from tests.support.repository import commit, run


def test_the_list_of_experiments_is_read() -> None:
    text = "main:\n\t1ad9c67 [cam-seed0]\n\t1323357 [cam-seed1]\n641060c:\n\taaaaaaa [cam-seed0]\n"
    assert experiments.parse_list(text) == {
        "main": [("1ad9c67", "cam-seed0"), ("1323357", "cam-seed1")],
        "641060c": [("aaaaaaa", "cam-seed0")],
    }
    assert experiments.parse_list("") == {}


def test_changed_code_is_found(folder: Path) -> None:
    (folder / "used.py").write_text("1")
    (folder / "room").mkdir()
    (folder / "room/inner.py").write_text("1")
    (folder / "other.py").write_text("1")
    commit(folder)
    revision = run(folder, "git", "rev-parse", "HEAD").stdout.strip()
    deps = [written(path, "x") for path in ("used.py", "room", "/elsewhere/images", "../up")]
    past = Experiment("cam-seed0", revision, True, {"cams": {"deps": deps}}, {})
    (folder / "other.py").write_text("2")
    assert experiments.changed_files(past, ["cams"]) == []
    (folder / "room/inner.py").write_text("2")
    assert experiments.changed_files(past, ["cams"]) == ["room/inner.py"]
