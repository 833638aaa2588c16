"""The whole graph through DVC: what runs again, what is drawn, and runs of two ranks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.metrics.steps import STEPS
from tests.support.repository import ENVIRONMENT, run, scores_of, set_parameters, stale

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.defect("s2c-9")
def test_every_artifact_is_there_and_scored(repository: Path) -> None:
    for name in ("cams", "seeds", "fields", "walk", "labels", "predictions"):
        assert (repository / f"data/{name}.h5").is_file()
    for name in STEPS:
        found = scores_of(repository, name)
        assert all(0 <= value <= 100 for value in found.values())
        own = {"cams": "best_miou", "seeds": "coverage", "walk": "best_miou"}.get(name, "AP50")
        assert found.keys() == {"miou", own}
    assert scores_of(repository, "walk")["miou"] == scores_of(repository, "labels")["miou"], (
        "as no segment votes"
    )
    page = (repository / "data/report/index.html").read_text()
    assert "data:image" in page
    assert (repository / "data/report/sheets/train-1.png").is_file()
    assert not list((repository / ".work").glob("*/*")), "finished work is removed"


def test_nothing_runs_again_when_nothing_changed(repository: Path) -> None:
    assert "up to date" in run(repository, "dvc", "repro").stdout
    assert "up to date" in run(repository, "dvc", "status").stdout


def test_git_sees_no_artifact(repository: Path) -> None:
    assert run(repository, "git", "status", "--short").stdout == ""


UPSTREAM = {
    "dataset",
    "segments",
    "guidance",
    "hints",
    "features",
    "classifier",
    "cams",
    "seeds",
    "irnet",
    "fields",
    "walk",
}
"""Stages that no change below touches."""


@pytest.mark.parametrize(
    ("change", "rerun"),
    [
        ({"runtime.device": "cpu", "runtime.workers": 2, "runtime.batch": 3}, set()),
        ({"labels.background": 0.6}, {"labels", "scores@walk"}),
        ({"labels.vote": "segments"}, {"labels"}),
        (
            {
                "classifier.puzzlecam.alpha": 2,
                "classifier.s2c.peak": 0.4,
                "classifier.seenet.width": 8,
            },
            {"report"},
        ),
        ({"scores.background": 0.2}, {"scores@cams"}),
        ({"report.images": 3}, {"report"}),
    ],
    ids=["runtime", "labels", "vote", "options of other methods", "scores", "report"],
)
def test_only_what_depends_on_a_change_is_stale(
    restored: Path, change: dict[str, object], rerun: set[str]
) -> None:
    set_parameters(restored, change)
    found = stale(restored)
    assert rerun <= found
    assert not {name.partition("@")[0] for name in found} & UPSTREAM
    assert bool(found) == bool(rerun)


def test_a_wrong_override_ends_at_once_with_help(restored: Path) -> None:
    """A name that DVC lets pass; test_params has more messages."""
    done = run(restored, "dvc", "exp", "run", "-S", "+cams.scale=1", check=False)
    assert done.returncode != 0
    for word in ("cams.scale", "did you mean 'scales'", "flip"):
        assert word in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.defect("s2c-6-7")
def test_another_method_runs_to_its_scores(restored: Path) -> None:
    """One that needs a segmenter; test_degenerate runs the stages of the others."""
    set_parameters(restored, {"classifier.method": "s2c", "classifier.s2c.warmup": 0})
    text = run(restored, "dvc", "repro", "scores@cams").stdout
    assert "Running stage 'classifier'" in text
    assert "Running stage 'cams'" in text
    assert "Running stage 'segments'" not in text
    assert 0 <= scores_of(restored, "cams")["best_miou"] <= 100


def test_a_queued_experiment_runs(restored: Path) -> None:
    """In a folder of DVC's own; test_compare has a grid."""
    options = ["-n", "low", "-S", "scores.background=0.1", "scores@cams"]
    run(restored, "dvc", "exp", "run", "--queue", *options)
    run(restored, "dvc", "exp", "run", "--run-all")
    assert "low" in run(restored, "dvc", "exp", "show", "--csv").stdout.replace(",", " ").split()


def test_plots_are_drawn(repository: Path, tmp_path: Path) -> None:
    drawn = json.loads(
        run(repository, "dvc", "plots", "show", "--json", "-o", str(tmp_path)).stdout
    )["data"]
    assert {
        f"data/curves/{name}.csv" for name in ("classifier", "irnet", "semantic", "instance")
    } <= set(drawn)
    for name in ("labels", "predictions"):
        values = drawn[f"confusion of {name}"][0]["content"]["data"]["values"]
        assert len(values) == 9 * 9
        assert sum(int(row["pixels"]) for row in values) > 0
    curve = drawn["threshold curve"][0]["content"]["data"]["values"]
    assert [float(row["threshold"]) for row in curve] == sorted(
        float(row["threshold"]) for row in curve
    )
    assert (tmp_path / "workspace_data_report_sheets_train-1.png").is_file()


def test_two_ranks_write_the_same_bytes_as_one(restored: Path) -> None:
    artifact = restored / "data/cams.h5"
    whole = artifact.read_bytes()
    artifact.unlink()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "stages.cams"],
            cwd=restored,
            env=ENVIRONMENT | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]
    for process in ranks:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error.decode()
    assert artifact.read_bytes() == whole
