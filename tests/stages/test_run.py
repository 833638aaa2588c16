"""The whole graph through DVC, in a copy of the repository with a handful of scenes and a network without weights."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from repositories import ENVIRONMENT, QUICK, commit, copy_code, run, set_parameters

from pipeline.datasets.index import Index

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which the whole graph has run."""
    folder = tmp_path_factory.mktemp("graph") / "repository"
    copy_code(folder)
    set_parameters(folder, QUICK)
    commit(folder)
    run(folder, "dvc", "repro")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "first run")
    return folder


@pytest.fixture
def restored(repository: Path) -> Iterator[Path]:
    """The repository; parameters and artefacts are put back afterwards."""
    yield repository
    run(repository, "git", "checkout", "-q", "--", ".")
    run(repository, "dvc", "checkout", "-q", "--force")


LADDER = ("cams", "seeds", "walk", "labels", "predictions")


def scores(folder: Path, name: str) -> dict[str, float]:
    """The scores of a rung that DVC lists."""
    return json.loads((folder / f"data/scores/{name}.json").read_text())[name]


def stale(folder: Path) -> set[str]:
    """Stages that `dvc repro` would run now, but for those whose inputs only they will change."""
    text = run(folder, "dvc", "repro", "--dry").stdout
    return {line.split("'")[1] for line in text.splitlines() if line.startswith("Running stage")}


def test_every_artefact_is_there_and_scored(repository: Path) -> None:
    for name in ("cams", "seeds", "fields", "labels", "predictions"):
        assert (repository / f"data/{name}.h5").is_file()
    for name in LADDER:
        found = scores(repository, name)
        assert all(0 <= value <= 1 for value in found.values())
        own = {"cams": "best_miou", "seeds": "coverage", "walk": "best_miou"}.get(name, "AP50")
        assert found.keys() == {"miou", own}
    assert scores(repository, "walk")["miou"] == scores(repository, "labels")["miou"], "as no segment votes"
    page = (repository / "data/report/index.html").read_text()
    assert "data:image" in page
    assert (repository / "data/report/sheets/train-1.png").is_file()
    assert not list((repository / ".work").glob("*/*")), "finished work is tidied away"


def test_nothing_runs_again_when_nothing_changed(repository: Path) -> None:
    assert "up to date" in run(repository, "dvc", "repro").stdout
    assert "up to date" in run(repository, "dvc", "status").stdout


def test_git_sees_no_artefact(repository: Path) -> None:
    assert run(repository, "git", "status", "--short").stdout == ""


@pytest.mark.parametrize(
    ("change", "rerun"),
    [
        ({"runtime.device": "cpu", "runtime.workers": 2, "runtime.batch": 3}, set()),
        ({"labels.background": 0.6}, {"labels", "scores@walk"}),
        ({"labels.vote": "segments"}, {"labels"}),
        (
            {"classifier.puzzlecam.alpha": 2, "classifier.s2c.peak": 0.4, "classifier.seenet.width": 8},
            {"report"},
        ),
        ({"scores.background": 0.2}, {f"scores@{name}" for name in LADDER}),
        ({"report.pictures": 3}, {"report"}),
    ],
    ids=["runtime", "labels", "vote", "options of other methods", "scores", "report"],
)
def test_only_what_depends_on_a_change_is_stale(
    restored: Path, change: dict[str, object], rerun: set[str]
) -> None:
    set_parameters(restored, change)
    found = stale(restored)
    upstream = {"dataset", "segments", "guidance", "classifier", "cams", "seeds", "irnet", "fields"}
    assert rerun <= found
    assert not found & upstream
    assert bool(found) == bool(rerun)


@pytest.mark.parametrize("method", ["puzzlecam", "s2c"])  # of seenet, test_compare sees to it
def test_other_methods_run_to_their_scores(restored: Path, method: str) -> None:
    set_parameters(restored, {"classifier.method": method, "classifier.s2c.warmup": 0})
    text = run(restored, "dvc", "repro", "scores@cams").stdout
    assert "Running stage 'classifier'" in text
    assert ("Running stage 'cams'") in text
    assert "Running stage 'segments'" not in text
    assert 0 <= scores(restored, "cams")["best_miou"] <= 1


def test_pictures_without_masks_run_to_a_report(restored: Path, tmp_path: Path) -> None:
    """A folder of pictures and their tags, as a user brings them: nothing to score by, everything else there."""
    index = Index.load(restored / "data/dataset")
    images, rows = tmp_path / "mine/images", ["image,classes"]
    images.mkdir(parents=True)
    for name, picture in index.items():
        Image.fromarray(index.image(name)).save(images / f"{name}.png")
        rows.append(f"{name},{' '.join(index.classes[tag] for tag in picture.tags)}")
    (tmp_path / "mine/labels.csv").write_text("\n".join(rows) + "\n")
    set_parameters(restored, {"dataset.format": "folder", "dataset.source": str(tmp_path / "mine")})
    run(restored, "dvc", "repro")
    assert all(scores(restored, name) == {} for name in LADDER)
    page = (restored / "data/report/index.html").read_text()
    assert "data:image" in page
    assert "nan" not in page.lower().split()
    run(restored, "weakmask", "report-diff", "HEAD", "data/report")
    text = run(restored, "weakmask", "scores").stdout
    assert re.search(r"pseudo-labels +train +-", text)
    assert run(restored, "weakmask", "inspect").returncode == 0


def test_without_an_instance_model_there_are_semantic_maps_alone(restored: Path) -> None:
    set_parameters(restored, {"instance.method": "none"})
    run(restored, "dvc", "repro", "scores@predictions")
    assert 0 <= scores(restored, "predictions")["miou"] <= 1
    assert "AP50" not in scores(restored, "predictions")


def test_the_other_instance_model_runs_to_its_scores(restored: Path) -> None:
    set_parameters(restored, {"instance.method": "maskrcnn", "instance.maskrcnn.channels": 8})
    text = run(restored, "dvc", "repro", "scores@predictions").stdout
    assert "Running stage 'instance'" in text
    assert "Running stage 'semantic'" not in text
    assert 0 <= scores(restored, "predictions")["miou"] <= 1
    assert "maskrcnn" in run(restored, "weakmask", "inspect", "data/instance.safetensors").stdout


def test_a_change_of_segments_retrains_the_classifier_under_s2c_alone(restored: Path) -> None:
    def changed() -> str:
        set_parameters(restored, {"segments.embeddings": True})
        run(restored, "dvc", "repro", "guidance")
        set_parameters(restored, {"segments.embeddings": False})
        run(restored, "dvc", "repro", "guidance")
        return run(restored, "dvc", "status", "classifier").stdout

    assert "data/guidance.h5" not in changed()
    set_parameters(
        restored, {"classifier.method": "s2c", "classifier.s2c.cpm": False, "segments.embeddings": True}
    )
    run(restored, "dvc", "repro", "classifier")
    assert "data/guidance.h5" in changed()


def test_a_changed_threshold_reruns_labels_and_what_follows(restored: Path) -> None:
    set_parameters(restored, {"labels.background": 0.9})
    text = run(restored, "dvc", "repro", "scores@labels").stdout
    ran = {line.split("'")[1] for line in text.splitlines() if line.startswith("Running stage")}
    assert ran == {"labels", "scores@labels"}
    assert stale(restored) == {"scores@walk", "semantic", "instance", "report"}, (
        "the first of what follows; DVC asks the others then"
    )
    assert "labels.json" in run(restored, "dvc", "metrics", "diff").stdout
    assert "data/scores/predictions.json" in run(restored, "dvc", "metrics", "show").stdout


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("classifier.epochs=abc", ["classifier.epochs", "number", "abc"]),
        ("cams.scale=1", ["cams.scale", "'scale'"]),
        ("+cams.scale=1", ["cams.scale", "did you mean 'scales'", "mirror"]),
    ],
)
def test_a_wrong_override_ends_at_once_with_help(restored: Path, override: str, words: list[str]) -> None:
    done = run(restored, "dvc", "exp", "run", "-S", override, check=False)
    assert done.returncode != 0
    for word in words:
        assert word in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_experiments_run_and_queue(restored: Path) -> None:
    for words, background in ((["coarse"], 0.3), (["low", "--queue"], 0.1), (["high", "--queue"], 0.4)):
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
    drawn = json.loads(run(repository, "dvc", "plots", "show", "--json", "-o", str(tmp_path)).stdout)["data"]
    assert {f"data/curves/{name}.csv" for name in ("classifier", "irnet", "semantic", "instance")} <= set(
        drawn
    )
    for name in ("labels", "predictions"):
        values = drawn[f"confusion of {name}"][0]["content"]["data"]["values"]
        assert len(values) == 9 * 9
        assert sum(int(row["pixels"]) for row in values) > 0
    curve = drawn["threshold curve"][0]["content"]["data"]["values"]
    assert [float(row["threshold"]) for row in curve] == sorted(float(row["threshold"]) for row in curve)
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


def test_a_killed_picture_stage_goes_on_to_the_same_bytes(restored: Path) -> None:
    artefact = restored / "data/cams.h5"
    set_parameters(restored, {"runtime.shard": 1})
    run(restored, sys.executable, "-m", "stages.cams")
    whole = artefact.read_bytes()
    artefact.unlink()
    shards = restored / ".work/cams"
    interrupted(restored, "cams", lambda: len(list(shards.rglob("shard-*.h5"))) >= 2)
    assert not artefact.exists()
    kept = {path: path.stat().st_mtime_ns for path in shards.rglob("shard-*.h5")}
    assert 2 <= len(kept) < 12
    text = run(restored, sys.executable, "-m", "stages.cams").stderr
    assert f"goes on, {len(kept)} shards were finished before" in text
    assert artefact.read_bytes() == whole


def test_a_killed_training_goes_on_to_the_same_bytes(restored: Path) -> None:
    set_parameters(restored, {"irnet.epochs": 4, "runtime.checkpoint": 0.001})
    run(restored, sys.executable, "-m", "stages.irnet")
    whole = (restored / "data/irnet.safetensors").read_bytes()
    curve = (restored / "data/curves/irnet.csv").read_bytes()
    for path in ("data/irnet.safetensors", "data/curves/irnet.csv"):
        (restored / path).unlink()
    interrupted(restored, "irnet", lambda: bool(list((restored / ".work/irnet").rglob("checkpoint.pt"))))
    text = run(restored, sys.executable, "-m", "stages.irnet").stderr
    assert "goes on at step" in text
    assert (restored / "data/irnet.safetensors").read_bytes() == whole
    assert (restored / "data/curves/irnet.csv").read_bytes() == curve


@pytest.mark.parametrize("stage", ["cams", "labels"])
def test_two_ranks_write_the_same_bytes_as_one(restored: Path, stage: str) -> None:
    artefact = restored / f"data/{stage}.h5"
    whole = artefact.read_bytes()
    artefact.unlink()
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
    assert artefact.read_bytes() == whole
