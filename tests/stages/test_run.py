"""The whole graph through DVC: what runs again, what is drawn, and runs that are killed or have two
ranks.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.repository import ENVIRONMENT, LADDER, run, scores_of, set_parameters, stale

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.defect("s2c-9")
def test_every_artifact_is_there_and_scored(repository: Path) -> None:
    for name in ("cams", "seeds", "fields", "walk", "labels", "predictions"):
        assert (repository / f"data/{name}.h5").is_file()
    for name in LADDER:
        found = scores_of(repository, name)
        assert all(0 <= value <= 1 for value in found.values())
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
        ({"labels.background": 0.6}, {"labels"}),
        ({"labels.vote": "segments"}, {"labels"}),
        (
            {
                "classifier.puzzlecam.alpha": 2,
                "classifier.s2c.peak": 0.4,
                "classifier.seenet.width": 8,
            },
            {"report"},
        ),
        ({"scores.background": 0.2}, {f"scores@{name}" for name in LADDER}),
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


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("classifier.epochs=abc", ["classifier.epochs", "number", "abc"]),
        ("cams.scale=1", ["cams.scale", "'scale'"]),
        ("+cams.scale=1", ["cams.scale", "did you mean 'scales'", "flip"]),
    ],
)
def test_a_wrong_override_ends_at_once_with_help(
    restored: Path, override: str, words: list[str]
) -> None:
    done = run(restored, "dvc", "exp", "run", "-S", override, check=False)
    assert done.returncode != 0
    for word in words:
        assert word in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_experiments_run_and_queue(restored: Path) -> None:
    for words, background in (
        (["coarse"], 0.3),
        (["low", "--queue"], 0.1),
        (["high", "--queue"], 0.4),
    ):
        run(
            restored,
            "dvc",
            "exp",
            "run",
            "-n",
            *words,
            "-S",
            f"scores.background={background}",
            "scores@cams",
        )
    run(restored, "dvc", "exp", "run", "--run-all")
    table = run(restored, "dvc", "exp", "show", "--csv").stdout
    assert {"coarse", "low", "high"} <= set(table.replace(",", " ").split())


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


def interrupted(folder: Path, stage: str, ready: Callable[[], bool]) -> None:
    """Start a stage and kill it with SIGKILL as soon as it is `ready`."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, f"{stage} ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_image_stage_resumes_to_the_same_bytes(restored: Path) -> None:
    artifact = restored / "data/cams.h5"
    set_parameters(restored, {"runtime.shard": 1})
    run(restored, sys.executable, "-m", "stages.cams")
    whole = artifact.read_bytes()
    artifact.unlink()
    shards = restored / ".work/cams"
    interrupted(restored, "cams", lambda: len(list(shards.rglob("shard-*.h5"))) >= 2)
    assert not artifact.exists()
    kept = {path: path.stat().st_mtime_ns for path in shards.rglob("shard-*.h5")}
    assert 2 <= len(kept) < 12
    text = run(restored, sys.executable, "-m", "stages.cams").stderr
    assert f"resumes, {len(kept)} shards are finished" in text
    assert artifact.read_bytes() == whole


def test_a_killed_training_resumes_to_the_same_bytes(restored: Path) -> None:
    set_parameters(restored, {"irnet.epochs": 4, "runtime.checkpoint": 0.001})
    run(restored, sys.executable, "-m", "stages.irnet")
    whole = (restored / "data/irnet.safetensors").read_bytes()
    curve = (restored / "data/curves/irnet.csv").read_bytes()
    for path in ("data/irnet.safetensors", "data/curves/irnet.csv"):
        (restored / path).unlink()
    interrupted(
        restored, "irnet", lambda: bool(list((restored / ".work/irnet").rglob("checkpoint.pt")))
    )
    text = run(restored, sys.executable, "-m", "stages.irnet").stderr
    assert "resumes at step" in text
    assert (restored / "data/irnet.safetensors").read_bytes() == whole
    assert (restored / "data/curves/irnet.csv").read_bytes() == curve


@pytest.mark.parametrize("stage", ["cams", "labels"])
def test_two_ranks_write_the_same_bytes_as_one(restored: Path, stage: str) -> None:
    artifact = restored / f"data/{stage}.h5"
    whole = artifact.read_bytes()
    artifact.unlink()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", f"stages.{stage}"],
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
