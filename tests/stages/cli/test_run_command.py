"""weakmask run: what it shows, what it keeps in its log, and how long it says a run takes."""

import io
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from dvc.repo import Repo

from pipeline.params import presets
from stages.cli.main import main
from stages.cli.run import LOG, SECONDS, Progress, split

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # those inside of DVC
]

GRAPH = """stages:
  dataset:
    cmd: [echo chatter, 'echo "dataset: 3 images"', echo 1 > one]
    outs: [one]
  labels:
    cmd: {command}
    deps: [one]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True).close()
    (tmp_path / "data/scores").mkdir(parents=True)
    (tmp_path / "data/scores/labels.json").write_text('{"labels": {"miou": 50.0}}')
    return tmp_path


def test_stages_and_messages_are_shown_and_all_else_is_logged(project: Path) -> None:
    (project / "dvc.yaml").write_text(GRAPH.format(command="echo done"))
    result = CliRunner().invoke(main, ["run"])
    assert result.exit_code == 0, result.output
    shown = result.stderr.splitlines()
    assert [line.split(", about")[0] for line in shown] == [
        "stage 1 of 2: dataset",
        "  dataset: 3 images",
        "stage 2 of 2: labels",
    ]
    assert re.search(r"labels +train +50\.0", result.stdout), "the table"
    assert "weakmask browse" in result.stdout
    assert {"chatter", "Running stage 'labels':"} <= set(LOG.read_text().splitlines())
    assert set(json.loads(SECONDS.read_text())) == {"dataset", "labels"}
    assert "stage" not in CliRunner().invoke(main, ["run", "labels"]).stderr, "nothing changed"


def test_a_run_without_masks_ends_with_its_report(project: Path) -> None:
    (project / "dvc.yaml").write_text(GRAPH.format(command="echo done"))
    (project / "data/scores/labels.json").write_text('{"labels": {}}')
    result = CliRunner().invoke(main, ["run"])
    assert result.exit_code == 0, result.output
    assert "no image has a ground-truth mask" in result.stdout
    assert "report: data/report/index.html" in result.stdout


def test_a_wrong_parameter_lists_the_valid_ones_before_anything_runs(project: Path) -> None:
    (project / "dvc.yaml").write_text(GRAPH.format(command="echo done"))
    result = CliRunner().invoke(main, ["run", "-S", "wlak.beta=3"])
    assert result.exit_code == 1
    assert "wlak: no such parameter; did you mean 'walk'?" in result.stderr
    assert not LOG.exists()


def test_a_source_that_is_not_there_is_named_before_anything_runs(project: Path) -> None:
    (project / "dvc.yaml").write_text(GRAPH.format(command="echo done"))
    (project / "params.yaml").write_text(presets.text("folder"))
    for arguments in (["run"], ["run", "-S", "dataset.source=images"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1
        assert "dataset.source: images does not exist; name the folder" in result.stderr
        assert not LOG.exists()


def test_a_failure_shows_the_end_of_the_log(project: Path) -> None:
    (project / "dvc.yaml").write_text(GRAPH.format(command="echo no more disk && false"))
    result = CliRunner().invoke(main, ["run"])
    assert result.exit_code == 1
    assert "labels failed; the end of .work/run.log:" in result.stderr
    assert "no more disk" in result.stderr
    assert set(json.loads(SECONDS.read_text())) == {"dataset"}


def test_what_fails_before_it_starts_is_named_all_the_same(project: Path) -> None:
    (project / "dvc.yaml").write_text(
        GRAPH.format(command="x").replace("deps: [one]", "deps: [no]")
    )
    result = CliRunner().invoke(main, ["run"])
    assert result.exit_code == 1
    assert "labels failed; the end of .work/run.log:" in result.stderr


def test_a_folder_without_a_pipeline_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["run"])
    assert result.exit_code == 1
    assert "run it in the folder of dvc.yaml" in result.stderr


def test_states_of_a_bar_are_told_from_lines() -> None:
    states = ("a: 0image [00:00, ?image/s]", "a:   0%|   | 0/2", "a:  50%|#  | 1/2")
    output = "\r".join(["a: starts\n", *states, "a: 100%|###| 2/2\nb", "rest"])
    assert list(split(io.BytesIO(output.encode()))) == [
        ("a: starts", False),
        ("a: 0image [00:00, ?image/s]", True),
        ("a:   0%|   | 0/2", True),
        ("a:  50%|#  | 1/2", True),
        ("a: 100%|###| 2/2", True),
        ("b", False),
        ("rest", False),
    ]


def test_the_time_left_follows_earlier_runs_and_the_pace_of_this_one() -> None:
    progress = Progress(["a", "b", "c"], {"a": 100, "b": 200, "c": 100})
    progress.name = "a"
    assert progress.position() == "stage 1 of 3: a, about 7 minutes left"
    progress.took, progress.name = {"a": 260.0}, "b"
    assert progress.pace() == 2
    assert progress.position() == "stage 2 of 3: b, about 10 minutes left"
