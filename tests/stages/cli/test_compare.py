"""`weakmask compare`: where it refuses, and whole comparisons by DVC's queue."""

import csv
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from stages.cli.compare import compare
from stages.cli.main import Commands
from stages.experiments import queue
from tests.support.repository import (
    ENVIRONMENT,
    QUICK,
    ROOT,
    commit,
    copy_code,
    run,
    set_parameters,
)

pytestmark = pytest.mark.timeout(900)


# The command, where it refuses


@click.group(cls=Commands)
def group() -> None:
    """As in stages/cli/main.py."""


group.add_command(compare)


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(group, ["compare", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "cam,grad"], "there is no 'grad'; choose from cam"),
        (["--steps", "seeds"], "there is no 'seeds'; choose from cams, labels, predictions"),
        (["--name", "a b"], "--name"),
        (["--seed", "1", "-S", "labels.background=2"], "one commit at least"),
    ],
)
def test_the_command_refuses_before_any_work(
    folder: Path, arguments: Sequence[str], message: str
) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert message in result.output


def test_a_repository_is_needed(folder: Path) -> None:
    run(folder, "git", "init", "-q")
    assert "git commit -m start" in invoke().output
    commit(folder)
    assert "dvc init" in invoke().output
    (folder / "dvc.yaml").unlink()
    assert "dvc.yaml" in invoke().output
    (folder / "params.yaml").unlink()
    assert "params.yaml" in invoke().output


# Whole comparisons by DVC's queue, of a graph that makes up its scores

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
import json, os, pathlib, sys, time
import yaml

name, data = sys.argv[1], pathlib.Path("data")
values = yaml.safe_load(open("params.yaml"))
method, seed = values["classifier"]["method"], values["base"]["seed"]
data.joinpath("scores").mkdir(parents=True, exist_ok=True)
if name == "scores":
    good = {"cam": 0.50 + 0.01 * seed, "seenet": 0.60 + 0.02 * seed}[method]
    scores = {sys.argv[2]: {"miou": good, "best_miou": good + 0.05}}
    data.joinpath(f"scores/{sys.argv[2]}.json").write_text(json.dumps(scores))
else:
    if name == "cams" and seed == 3:
        raise RuntimeError("seed three fails")
    hold = pathlib.Path(os.environ.get("HOLD", "nowhere"))
    if hold.exists():
        hold.write_text(str(os.getpid()))
    while hold.exists():
        time.sleep(0.1)
    before = data.joinpath("cams.h5").read_text() if name == "labels" else f"{method} {seed}"
    data.joinpath(f"{name}.h5").write_text(f"{before} {values[name]}")
"""
BOTH = ("--methods", "cam,seenet", "--seed", "0", "--seed", "1", "--steps", "cams")


@pytest.fixture
def graph(folder: Path) -> Iterator[Path]:
    """A repository with that graph; its workers are stopped afterwards."""
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "work.py").write_text(WORK)
    (folder / ".gitignore").write_text("/data/\n/.work/\n/hold\n")
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "init", "-q")
    commit(folder)
    yield folder
    run(folder, "dvc", "queue", "stop", "--kill")


@pytest.mark.slow
def test_methods_are_compared_and_not_run_again(graph: Path) -> None:
    first = invoke(*BOTH, "--csv", "scores.csv")
    assert first.exit_code == 0, first.output
    assert run(graph, "git", "status", "--short").stdout.split() == ["??", "scores.csv"]
    assert not (graph / "data").exists(), "experiments run elsewhere"
    lines = [" ".join(line.split()) for line in first.stdout.splitlines()]
    assert lines == [
        "seeds CAM, best CAM, fixed",
        "cam 2 55.5 ± 1.0 50.5 ± 1.0",
        "seenet 2 66.0 ± 2.0 61.0 ± 2.0",
        "",
        "minus cam, on the same seeds:",
        "seenet 2 +10.5 ± 1.0 * +10.5 ± 1.0 *",
        "",
        "mIoU and AP50 in percent; mean ± 2 standard errors of the mean over the seeds",
        "* beyond 2 standard errors; with 2 pairs chance alone reaches that in 30 % of comparisons",
        "wrote scores.csv",
    ]
    rows = list(csv.DictReader(io.StringIO((graph / "scores.csv").read_text())))
    assert len(rows) == 2 * 2 * 2
    assert {
        "method": "seenet",
        "seed": "1",
        "step": "cams",
        "score": "miou",
        "value": "0.62",
    } in rows
    before, _ = queue.tasks()
    again = invoke(*BOTH, "--csv", "scores.csv")
    assert again.stdout == first.stdout
    assert again.stderr.count("is there already") == 4
    assert queue.tasks()[0] == before
    shown = invoke("--show", "--steps", "cams", "--csv", "scores.csv")
    assert shown.stdout == first.stdout, "without choices, all that is there"


@pytest.mark.slow
def test_other_parameters_are_refused_forced_or_named(graph: Path) -> None:
    asked = ("--methods", "cam", "--steps", "cams")
    assert invoke(*asked).exit_code == 0
    changed = ("-S", "cams.flip=false")
    refused = invoke(*asked, *changed)
    assert refused.exit_code == 1
    assert "cam-seed0: cams.flip true, now false" in refused.stderr
    assert "--force replaces them" in refused.stderr
    assert "is there already" in invoke(*asked, "-S", "labels.background=0.3").stderr, (
        "which CAMs do not see"
    )
    named = invoke(*asked, *changed, "--name", "plain")
    assert "plain-cam-seed0 done" in named.stderr
    assert "cam-seed0 done" in invoke(*asked, *changed, "--force").stderr
    assert (
        "cam-seed0 was made otherwise than asked now: cams.flip false, now true"
        in invoke("--show").stderr
    )


@pytest.mark.slow
def test_more_steps_complete_an_experiment_and_other_commits_count(graph: Path) -> None:
    assert invoke("--methods", "cam", "--steps", "labels").exit_code == 0
    more = invoke("--methods", "cam", "--steps", "cams")
    assert "cam-seed0 done" in more.stderr
    run(graph, "git", "commit", "-q", "--allow-empty", "-m", "next")
    whole = invoke("--methods", "cam", "--steps", "cams,labels")
    assert "cam-seed0 is there already" in whole.stderr, "the earlier step was kept"
    (graph / "work.py").write_text(WORK + "# edited\n")
    edited = invoke("--methods", "cam", "--steps", "cams")
    assert "uncommitted changes go into the experiments: work.py" in edited.stderr
    assert "cam-seed0 done" in edited.stderr
    assert (graph / "work.py").read_text() == WORK + "# edited\n"


@pytest.mark.slow
def test_one_that_fails_is_named_and_the_others_go_on(graph: Path) -> None:
    done = invoke(
        "--methods", "cam", "--seed", "3", "--seed", "4", "--steps", "cams", "--jobs", "2"
    )
    assert done.exit_code == 1
    assert "RuntimeError: seed three fails" in done.stderr
    assert "all of it: dvc queue logs" in done.stderr
    assert "1 of 2 experiments failed: cam-seed3" in done.stderr
    assert "not there: cam-seed3" in done.stderr
    assert done.stdout.splitlines()[1].split() == ["cam", "1", "59.0", "54.0"]


@pytest.mark.slow
def test_scores_left_in_the_lock_file_by_another_run_are_not_taken(graph: Path) -> None:
    run(graph, "dvc", "repro")
    run(graph, "git", "add", "-A")
    run(graph, "git", "commit", "-qm", "a run of cam")
    assert invoke("--methods", "seenet", "--steps", "cams").exit_code == 0
    shown = invoke("--methods", "seenet", "--show", "--steps", "cams,labels")
    assert shown.stdout.splitlines()[1].split() == ["seenet", "1", "65.0", "60.0", "-", "-"]
    assert "seenet-seed0 has no scores of labels" in shown.stderr


def held(hold: Path, ready: subprocess.Popen[bytes]) -> int:
    """The process of the stage that waits for the file to go."""
    deadline = time.monotonic() + 200
    while not hold.read_text():
        assert ready.poll() is None, "it ended before its first stage began"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return int(hold.read_text())


def started(graph: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """The command as a process of its own, whose first stage is held."""
    (graph / "hold").touch()
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from tests.stages.cli.test_compare import group; group()"
    )
    environment = ENVIRONMENT | {
        "HOLD": str(graph / "hold"),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}",
    }
    return subprocess.Popen(
        [sys.executable, "-c", program, "compare", *arguments],
        cwd=graph,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.slow
def test_killed_and_started_again_it_goes_on(graph: Path) -> None:
    process = started(graph, *BOTH)
    held(graph / "hold", process)
    process.kill()
    process.communicate()
    refused = invoke(*BOTH, "-S", "cams.flip=false")
    assert "cam-seed0 is running with other parameters: cams.flip true, now false" in refused.stderr
    (graph / "hold").unlink()
    done = invoke(*BOTH)
    assert done.exit_code == 0, done.output
    assert "cam-seed0 queued" not in done.stderr, "what had begun is not begun again"
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:3]] == [
        ["cam", "2"],
        ["seenet", "2"],
    ]


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(graph: Path) -> None:
    process = started(graph, "--methods", "cam", "--steps", "cams")
    held(graph / "hold", process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=100)[0].decode()
    assert process.returncode == 1
    assert "this command, started again, waits for it" in output
    assert "Running" in run(graph, "dvc", "queue", "status").stdout
    (graph / "hold").unlink()


@pytest.mark.slow
def test_a_process_that_died_with_its_worker_is_begun_again(graph: Path) -> None:
    import psutil

    process = started(graph, "--methods", "cam", "--steps", "cams")
    chain = psutil.Process(held(graph / "hold", process)).parents()
    (graph / "hold").unlink()
    workers = [parent for parent in chain if {"exec-run", "queue-worker"} & set(parent.cmdline())]
    assert len(workers) == 2
    for worker in reversed(workers):
        worker.kill()
    output = process.communicate(timeout=300)[0].decode()
    assert process.returncode == 0, output
    assert "cam-seed0: its process died without a word" in output
    assert "cam-seed0 done" in output


# A comparison of a real method

TINY = QUICK | {
    "dataset.scenes.images": 6,
    "classifier.backbone.name": "test_resnet",
    "classifier.backbone.weights": "none",
    "classifier.frozen_stages": 0,
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_real_method_is_scored(folder: Path) -> None:
    copy_code(folder)
    set_parameters(folder, TINY)
    commit(folder)
    done = invoke("--methods", "seenet", "--steps", "cams")
    assert done.exit_code == 0, done.output
    assert run(folder, "git", "status", "--short").stdout == ""
    assert [path.name for path in (folder / "data").iterdir()] == [".gitkeep"]
    assert all(0 < float(number) < 100 for number in done.stdout.splitlines()[1].split()[2:])
