"""`weakmask browse`: its errors, and runs read from a real DVC cache."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from pipeline.browser.app import Server
from pipeline.browser.run import Run
from pipeline.errors import UserError
from stages.cli import browse as command
from stages.cli.main import main
from tests.support.repository import ENVIRONMENT, ROOT, commit, run
from tests.support.runs import (
    PARAMETERS,
    run_of,
    write_artifact,
    write_dataset,
    write_table,
)

GRAPH = """
stages:
  dataset:
    cmd: cp -r made/dataset data/dataset
    deps: [made/dataset]
    outs: [data/dataset]
  labels:
    cmd: cp made/${labels.background}.h5 data/labels.h5
    params: [labels]
    outs: [data/labels.h5]
  scores:
    cmd: mkdir -p data/scores && cp -r made/scores/labels data/scores/labels
    deps: [data/labels.h5]
    outs: [data/scores/labels]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a tagged run, and an experiment whose labels are others."""
    folder = tmp_path_factory.mktemp("repository")
    write_dataset(folder / "made/dataset")
    for background, shift in ((0.25, 0), (0.5, 4)):
        write_artifact(folder / "made", "labels", shift=shift)
        (folder / "made/labels.h5").rename(folder / f"made/{background}.h5")
    write_table(folder / "made", "labels")
    revisions_yaml = yaml.safe_dump(PARAMETERS)
    (folder / "params.yaml").write_text(revisions_yaml)
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "data").mkdir()
    (folder / ".gitignore").write_text("/data/*\n")
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "init", "-q")
    run(folder, "dvc", "config", "core.autostage", "false")
    commit(folder)
    run(folder, "dvc", "repro", "-q")
    run(folder, "git", "add", "dvc.lock")
    run(folder, "git", "commit", "-qm", "run")
    run(folder, "git", "tag", "first")
    run(folder, "dvc", "exp", "run", "-q", "-S", "labels.background=0.5", "-n", "higher")
    return folder


@pytest.fixture
def inside(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(repository)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return repository


@pytest.mark.slow
def test_tag_and_an_experiment_are_read_from_the_cache(inside: Path, tmp_path: Path) -> None:
    first, higher = (command.revision(name, tmp_path / name) for name in ("first", "higher"))
    before, after = first.reader("labels"), higher.reader("labels")
    assert ".dvc" in before.path.parts
    assert not np.array_equal(before["f"]["semantic"], after["f"]["semantic"])
    assert first.parameters["labels"]["background"] == 0.25
    assert higher.parameters["labels"]["background"] == 0.5
    assert first.miou("labels")["f"] == pytest.approx(0.4)
    assert first.paths.dataset == Path("data/dataset")
    assert not first.paths.missing
    np.testing.assert_array_equal(
        command.workspace().reader("labels")["f"]["semantic"], after["f"]["semantic"]
    )


@pytest.mark.slow
def test_images_of_another_dataset_are_linked_from_the_cache(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(inside, tmp_path / "copy"))
    shutil.rmtree("data/dataset")
    found = command.revision("first", tmp_path / "scratch")
    assert found.paths.dataset == tmp_path / "scratch"
    assert found.index.image("f").shape == (30, 41, 3)
    assert (tmp_path / "scratch/index.json").is_symlink()


@pytest.mark.slow
def test_what_the_cache_lacks_is_named_and_the_rest_is_there(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(inside, tmp_path / "copy")
    monkeypatch.chdir(copy)
    lost = command.revision("first", tmp_path / "a").reader("labels").path
    assert lost.is_relative_to(copy)
    lost.unlink()
    found = command.revision("first", tmp_path / "b")
    with pytest.raises(
        UserError, match=r"data/labels.h5 of first is not in DVC's cache.*`dvc fetch"
    ):
        found.reader("labels")
    assert found.miou("labels")
    assert command.revision("higher", tmp_path / "c").problems() == []


@pytest.mark.slow
def test_experiment_with_a_target_shows_no_scores_of_other_labels(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(inside, tmp_path / "copy")
    monkeypatch.chdir(copy)
    run(copy, "git", "checkout", "-qf", "main")
    run(copy, "dvc", "exp", "run", "-q", "-S", "labels.background=0.5", "-n", "target", "labels")
    found = command.revision("target", tmp_path / "scratch")
    assert found.reader("labels").names
    assert found.miou("labels") == {}
    (problem,) = found.problems()
    assert "another run made them: scores of labels" in problem


def invoke(*arguments: str) -> tuple[int, str]:
    """Run `weakmask browse` without opening a browser."""
    done = CliRunner().invoke(main, ["browse", "--no-open", *arguments])
    return done.exit_code, done.output


def test_parameters_are_there_while_dvc_writes_its_lock_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("labels: {background: 0.3}\n")
    stage = (
        "stages:\n  labels:\n    params:\n      params.yaml:\n        labels: {background: 0.5}\n"
    )
    for length in range(len(stage)):
        Path("dvc.lock").write_text(stage[:length])
        assert "labels" in command.workspace().parameters
    Path("dvc.lock").write_text(stage)
    assert command.workspace().parameters["labels"]["background"] == 0.5


@pytest.mark.slow
def test_revision_without_a_run(inside: Path) -> None:
    code, output = invoke("--port", "0", "--rev", "nowhere")
    assert code == 1
    assert "--rev nowhere: unknown Git revision 'nowhere'; name a Git revision, a tag" in output


@pytest.mark.slow
def test_workspace_comes_first_then_the_revisions(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    monkeypatch.setattr(
        Server, "serve_forever", lambda self: names.extend(self.pages.renderer.runs)
    )
    code, output = invoke(
        "--port", "0", *(f"--rev={name}" for name in ("first", "higher", "first"))
    )
    assert code == 0, output
    assert names == ["workspace", "first", "higher"]
    assert "http://127.0.0.1:" in output


def test_without_artifacts_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").touch()
    code, output = invoke()
    assert code == 1
    assert "data/dataset/index.json: no such file" in output
    assert "dvc repro dataset" in output


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_behind_when_it_is_ended(
    inside: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    options = ["--no-open", "--port", "0", "--rev", "first"]
    command = [sys.executable, "-m", "stages.cli.main", "browse", *options]
    paths = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, env=ENVIRONMENT | paths, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "Ctrl-C ends it" in process.stdout.readline()
        assert len(list(tmp_path.glob("weakmask-browse-*"))) == 1
        time.sleep(1)
        process.send_signal(ending)
        try:
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert not list(tmp_path.glob("weakmask-browse-*"))


def test_picked_folder_names_its_images_or_says_to_pick_again(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--picked: .*picked\.csv: not as weakmask pick writes it"):
        command.picked_images(tmp_path)
    (tmp_path / "picked.csv").write_text('image,uncertainty\n"a,b",0.5\nc,0.4\n')
    assert command.picked_images(tmp_path) == ["a,b", "c"]


def test_clicks_are_for_a_source_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path
    values: dict[str, object] = {"format": "folder", "source": str(folder)}
    own = Run("workspace", run_of(folder).paths, lambda: {"dataset": values})
    clicks = command.clicks_of(own)
    assert clicks is not None
    assert clicks.points == folder / "hints/clicked.csv"
    assert command.clicks_of(Run("first", own.paths, lambda: {"dataset": values})) is None
    values["format"] = "scenes"
    assert command.clicks_of(own) is None
