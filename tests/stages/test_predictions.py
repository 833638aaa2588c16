"""What stages do without the library of the dense CRF, and when an experiment fails."""

import sys
from pathlib import Path

import pytest

from pipeline.core.artifacts import Writer
from pipeline.data.index import Index
from stages.dataset import dataset
from stages.predictions import predictions
from stages.seeds import seeds
from tests.support.runtimes import run_stage


def test_a_missing_crf_is_reported_once_before_any_work(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    for name in ("hints", "cams"):
        with Writer(Path(f"data/{name}.h5"), name, Index.load(Path("data/dataset")).classes):
            pass
    for stage in (seeds, predictions):
        done = run_stage(stage)
        assert done.exit_code == 1
        assert done.output.count("pydensecrf2, which is not installed") == 1
    assert run_stage(seeds, values={"seeds.crf.iterations": 0}).exit_code == 0


def test_a_failed_experiment_says_how_to_take_its_parameters_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the workspace only: --temp and --queue change a copy of params.yaml."""
    copy, hint = tmp_path / ".dvc/tmp/exps/1", "`git restore params.yaml` takes them back"
    copy.mkdir(parents=True)
    for folder, revision, hinted in (
        (tmp_path, "", False),
        (tmp_path, "1", True),
        (copy, "1", False),
    ):
        monkeypatch.chdir(folder)
        if revision:
            monkeypatch.setenv("DVC_EXP_BASELINE_REV", revision)
        done = run_stage(dataset, values={"dataset.classes": ["nosuch"]})
        assert done.exit_code == 1
        assert "nosuch" in done.output
        assert (hint in done.output) == hinted
