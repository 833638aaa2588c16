"""`weakmask compare`: what it refuses, and tables of experiments out of DVC's own queue."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stages.cli.main import main
from tests.support.repository import commit, run, set_parameters

pytestmark = pytest.mark.timeout(600)
GRAPH = """
stages:
  cams:
    cmd: python work.py cams
    deps: [work.py]
    params: [base.seed, classifier.method, cams]
    outs: [data/cams.h5]
  labels:
    cmd: python work.py labels
    deps: [data/cams.h5]
    params: [labels]
    outs: [data/labels.h5]
  scores:
    foreach: [cams, labels]
    do:
      cmd: python work.py scores ${item}
      deps: ["data/${item}.h5"]
      metrics: ["data/scores/${item}.json"]
"""
WORK = """
import json, pathlib, sys
import yaml

name, data = sys.argv[1], pathlib.Path("data")
values = yaml.safe_load(open("params.yaml"))
method, seed = values["classifier"]["method"], values["base"]["seed"]
data.joinpath("scores").mkdir(parents=True, exist_ok=True)
if name == "scores":
    good = {"cam": 0.50 + 0.01 * seed, "seenet": 0.60 + 0.02 * seed}[method]
    scores = {sys.argv[2]: {"miou": 100 * good, "best_miou": 100 * good + 5, "AP50": None}}
    data.joinpath(f"scores/{sys.argv[2]}.json").write_text(json.dumps(scores))
else:
    if name == "cams" and seed == 3:
        raise RuntimeError("seed three fails")
    before = data.joinpath("cams.h5").read_text() if name == "labels" else f"{method} {seed}"
    data.joinpath(f"{name}.h5").write_text(f"{before} {values[name]}")
"""


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["compare", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def graph(folder: Path) -> Path:
    """A repository whose graph makes up its scores."""
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "work.py").write_text(WORK)
    set_parameters(folder, {"dataset.source": "work.py"})  # which Git tracks
    (folder / ".gitignore").write_text("/data/\n")
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "init", "-q")
    commit(folder)
    return folder


def test_overrides_without_queue_are_refused(folder: Path) -> None:
    result = invoke("-S", "base.seed=0,1")
    assert result.exit_code == 1
    assert "-S: needs --queue" in result.output


def test_folder_without_repository_is_refused(folder: Path) -> None:
    result = invoke()
    assert result.exit_code == 1
    assert "`dvc exp show" in result.output
    assert "Traceback" not in result.output
    assert "see its message above" in invoke("--queue", "-S", "base.seed=1").output


@pytest.mark.slow
def test_grid_is_queued_and_its_finished_experiments_compared(graph: Path) -> None:
    grid = ("-S", "classifier.method=cam,seenet", "-S", "base.seed=0,1,3")
    queued = invoke("--queue", *grid)
    assert queued.exit_code == 0, queued.output
    assert "dvc queue start" in queued.output
    run(graph, "dvc", "exp", "run", "--run-all", check=False)  # seed 3 fails
    done = invoke()
    assert done.exit_code == 0, done.output
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [
        "seeds cams, best cams labels",
        "cam 2 55.5 ± 0.7 50.5 ± 0.7 50.5 ± 0.7",
        "seenet 2 66.0 ± 1.4 61.0 ± 1.4 61.0 ± 1.4",
        "",
        "minus cam, on the same seeds:",
        "seenet 2 +10.5 ± 0.7 * +10.5 ± 0.7 * +10.5 ± 0.7 *",
        "",
        "mIoU and AP50 in percent; mean ± standard deviation over the seeds",
        "* p < 0.05 in a paired t-test over the seeds",
    ]


@pytest.mark.slow
def test_scores_left_from_another_run_are_named_and_left_out(graph: Path) -> None:
    run(graph, "dvc", "repro")
    run(graph, "git", "add", "-A")
    run(graph, "git", "commit", "-qm", "a run of cam")
    method = ("-S", "classifier.method=seenet")
    run(graph, "dvc", "exp", "run", "-n", "target", *method, "scores@cams")
    done = invoke()
    assert done.stdout.splitlines()[1].split() == ["seenet", "1", "65.0", "60.0"]
    assert "target: no scores of labels" in done.stderr
    (graph / "work.py").write_text(WORK + "# edited\n")
    run(graph, "dvc", "exp", "run", "-n", "edited", "-S", "labels.background=0.5", *method)
    both = invoke()
    assert "the experiments ran with different versions of work.py" in both.stderr
    assert [line.split()[:2] for line in both.stdout.splitlines()[1:3]] == [
        ["seenet", "labels.background=0.2"],
        ["seenet", "labels.background=0.5"],
    ]
    assert "labels.background" not in invoke("edited").stdout
    run(graph, "git", "commit", "-q", "--allow-empty", "-m", "next")
    none = invoke()
    assert none.exit_code == 1
    assert "queue some with `weakmask compare --queue" in none.stderr
    assert "edited: no finished experiment; there are none" in invoke("edited").stderr
    assert invoke("--rev", "HEAD~1").stdout == both.stdout
