"""`weakmask compare`: names, statistics and tables by hand-worked numbers; DVC's words; whole comparisons by its queue."""

import csv
import io
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result
from test_run import ENVIRONMENT, QUICK, ROOT, run, set_parameters

from pipeline.errors import UserError
from stages import comparison, experiments
from stages.compare import (
    METHODS,
    Run,
    best,
    choose,
    compare,
    experiment_name,
    judge,
    log_tail,
    override,
    parse_name,
    plan,
    scores_of,
)
from stages.comparison import Estimate, Score, as_csv, beyond_chance, cell, chance, estimate, paired, table
from stages.experiments import Experiment, Task
from stages.weakmask import Commands

pytestmark = pytest.mark.timeout(900)
PARAMETERS = yaml.safe_load((ROOT / "params.yaml").read_text())


# Names and choices


def test_lists_are_split_once_each_and_default_to_all() -> None:
    assert choose("--methods", ["cam,seenet", "cam"], METHODS) == ["cam", "seenet"]
    assert choose("--methods", [], METHODS) == list(METHODS)


def test_a_wrong_choice_lists_the_valid_ones() -> None:
    with pytest.raises(UserError, match=r"--steps: there is no 'cam'; choose from cams, labels, predictions"):
        choose("--steps", ["cam"], comparison.STEPS)


@pytest.mark.parametrize("prefix", ["", "low", "cam-seed1"])
def test_names_are_read_back(prefix: str) -> None:
    for method in METHODS:
        assert parse_name(prefix, experiment_name(prefix, method, 12)) == (method, 12)


@pytest.mark.parametrize("name", ["low-cam-seed1", "cam-seed", "cam-seed01", "other-seed1", "cam-seed1-b"])
def test_other_names_are_no_ours(name: str) -> None:
    assert parse_name("", name) is None


def test_runs_go_seed_by_seed_with_their_parameters() -> None:
    runs = plan(PARAMETERS, ["cam", "seenet"], [3, 5, 3], overrides=["labels.background=0.4"], prefix="low")
    assert [item.name for item in runs] == [
        "low-cam-seed3",
        "low-seenet-seed3",
        "low-cam-seed5",
        "low-seenet-seed5",
    ]
    last = runs[-1]
    assert last.overrides == ("labels.background=0.4", "classifier.method=seenet", "base.seed=5")
    assert last.parameters["classifier"]["method"] == "seenet"
    assert (last.parameters["base"]["seed"], last.parameters["labels"]["background"]) == (5, 0.4)
    assert yaml.safe_load((ROOT / "params.yaml").read_text()) == PARAMETERS, "what was given is left alone"


def test_overrides_are_read_as_dvc_reads_them() -> None:
    assert override(PARAMETERS, "cams.scales=[0.5,1]")["cams"]["scales"] == [0.5, 1]
    assert override(PARAMETERS, "classifier.optimizer.lr=1e-3")["classifier"]["optimizer"]["lr"] == 0.001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels.background", "section.name=value"),
        ("+labels.other=1", "section.name=value"),
        ("nowhere.background=1", "no section nowhere"),
        ("labels.background.deep=1", "no section labels.background"),
        ("labels.background=0.1,0.2", "must be one value"),
        ("classifier.method=cam", "--methods says that"),
        ("base.seed=3", "--seed says that"),
        ("labels.nothing=1", "labels.nothing"),
        ("labels.background=much", "labels.background"),
    ],
)
def test_wrong_overrides_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        plan(PARAMETERS, ["cam"], [0], overrides=[text])


# Statistics and tables


def test_mean_and_standard_error() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert found is not None
    assert (found.mean, found.n) == (2, 3)
    assert found.error == pytest.approx(1 / math.sqrt(3))
    assert estimate([0.4]) == Estimate(0.4, None, 1)
    assert estimate([]) is None


def test_differences_are_of_the_same_seed() -> None:
    found = paired({0: 0.5, 1: 0.7, 2: 0.6}, {0: 0.6, 1: 0.9, 3: 0.1})
    assert found is not None
    assert (found.mean, found.n) == (pytest.approx(0.15), 2)
    assert found.error == pytest.approx(0.05)  # 0.1 and 0.2: s = 0.1 / sqrt(2), over sqrt(2)
    assert paired({0: 0.5}, {1: 0.5}) is None


@pytest.mark.parametrize(
    ("mean", "error", "beyond"),
    [(0.15, 0.05, True), (-0.15, 0.05, True), (0.1, 0.05, False), (0.3, None, False), (0.0, 0.0, False)],
)
def test_what_is_beyond_chance(mean: float, error: float | None, beyond: bool) -> None:
    assert beyond_chance(Estimate(mean, error, 1 if error is None else 3)) is beyond


def test_chance_by_students_distribution() -> None:
    assert chance(2) == pytest.approx(1 - 2 * math.atan(2) / math.pi)
    assert chance(3) == pytest.approx(1 - 2 / math.sqrt(6))
    assert chance(100000) == pytest.approx(math.erfc(math.sqrt(2)), abs=1e-5)


def test_cells() -> None:
    assert cell(None, 3).strip() == "-"
    assert cell(Estimate(0.385, None, 1), 1).strip() == "38.5"
    assert cell(Estimate(0.385, 0.006, 3), 3).strip() == "38.5 ± 1.2"
    assert cell(Estimate(0.385, 0.006, 2), 3).strip() == "38.5 ± 1.2 (2)"
    assert cell(Estimate(0.021, 0.004, 3), 3, sign="+", mark=True) == "+2.1 ± 0.8 *"


def numbers(method: str, *values: float) -> list[Score]:
    return [Score(method, seed, "labels", "miou", value) for seed, value in enumerate(values)]


def test_a_table_of_two_methods_and_three_seeds() -> None:
    scores = [*numbers("cam", 0.5, 0.6, 0.7), *numbers("seenet", 0.55, 0.67, 0.76)]
    scores.append(Score("cam", 0, "labels", "instance.AP50", 0.25))
    assert table(scores, ["cam", "seenet"], ["labels"]) == [
        "        seeds  pseudo-labels    instance AP50",
        "cam         3    60.0 ± 11.5         25.0 (1)",
        "seenet      3    66.0 ± 12.2                -",
        "",
        "minus cam, on the same seeds:",
        "seenet      3     +6.0 ± 1.2 *              -",
        "",
        "mIoU and AP50 in percent; mean ± 2 standard errors of the mean over the seeds",
        "* beyond 2 standard errors; with 3 pairs chance alone reaches that in 18 % of comparisons",
    ]


def test_a_table_of_one_seed_claims_nothing() -> None:
    lines = table([*numbers("cam", 0.5), *numbers("seenet", 0.9)], ["cam", "seenet"], ["labels"])
    text = "\n".join(lines)
    assert "+40.0" in text
    assert "±" not in text
    assert "*" not in text
    assert "nothing tells these differences from chance" in text


def test_a_table_without_scores_says_so() -> None:
    assert table([], ["cam", "seenet"], ["cams"])[-1] == "no scores"


def test_csv_holds_every_number() -> None:
    rows = list(csv.reader(io.StringIO(as_csv(numbers("cam", 0.5, 0.61234)))))
    assert rows == [
        ["method", "seed", "step", "score", "value"],
        ["cam", "0", "labels", "miou", "0.5"],
        ["cam", "1", "labels", "miou", "0.61234"],
    ]


# DVC's words and lock file

STATUS = """\
Task     Name       Created    Status
22e34c7  cam-seed5  10:34 AM   Running
bbf9f24  cam-seed6  Nov 20, 2026  Queued
c1fd297             10:06 AM   Failed
00dde37  cam-seed5  10:12 AM   Failed

Worker status: 1 active, 2 idle
"""


def test_the_queue_is_read() -> None:
    entries, workers = experiments.parse_status(STATUS)
    assert workers == 3
    assert Task("22e34c7", "cam-seed5", "Running") in entries
    assert Task("bbf9f24", "cam-seed6", "Queued") in entries
    assert experiments.by_name(entries)["cam-seed5"].status == "Running"
    assert experiments.parse_status(
        "No experiment tasks in the queue.\n\nWorker status: 0 active, 0 idle\n"
    ) == ([], 0)


def test_an_entry_that_ends_while_dvc_lists_them_is_read_once_by_its_end() -> None:
    twice = STATUS.replace("Worker", "22e34c7  cam-seed5  10:34 AM   Success\n\nWorker")
    entries, _ = experiments.parse_status(twice)
    assert [task.status for task in entries if task.revision == "22e34c7"] == ["Success"]


def looks(monkeypatch: pytest.MonkeyPatch, *entries: Sequence[Task]) -> None:
    """Let the queue be read as this, look by look, with a worker that is there."""
    each = iter(entries)
    monkeypatch.setattr(experiments, "tasks", lambda: (list(next(each)), 1))
    monkeypatch.setattr(experiments.time, "sleep", lambda _: None)


def test_an_entry_unseen_while_it_begins_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task("22e34c7", "cam-seed5", "Success")
    looks(monkeypatch, [replace(task, status="Queued")], [], [task])
    assert list(experiments.watch(["cam-seed5"], jobs=1, work=Path("work"))) == [("cam-seed5", task)]
    looks(monkeypatch, [replace(task, status="Queued")], [], [])
    assert list(experiments.watch(["cam-seed5"], jobs=1, work=Path("work"))) == [("cam-seed5", None)]


def test_two_looks_find_an_entry_that_begins_between(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, waiting = Task("22e34c7", "cam-seed5", "Running"), Task("bbf9f24", "cam-seed6", "Queued")
    looks(monkeypatch, [waiting], [begun, waiting])
    assert experiments.settled() == [waiting, begun]
    looks(monkeypatch, [begun, waiting], [waiting])
    assert experiments.settled() == [begun, waiting]


def test_the_list_of_experiments_is_read() -> None:
    text = "main:\n\t1ad9c67 [cam-seed0]\n\t1323357 [cam-seed1]\n641060c:\n\taaaaaaa [cam-seed0]\n"
    assert experiments.parse_list(text) == {
        "main": [("1ad9c67", "cam-seed0"), ("1323357", "cam-seed1")],
        "641060c": [("aaaaaaa", "cam-seed0")],
    }
    assert experiments.parse_list("") == {}


def test_a_log_tells_its_stage_and_why_it_ended() -> None:
    lines = ["Running stage 'dataset':", "> python", "Stage 'cams' is cached - skipping run", "boom", "boom"]
    assert experiments.stage_of(lines) == "cams"
    assert experiments.stage_of([]) == ""
    assert log_tail(lines)[-1] == "boom"
    assert log_tail(lines).count("boom") == 1


def written(path: str, content: str) -> dict[str, str]:
    return {"path": path, "hash": "md5", "md5": content}


def lock_of(*, labels_from: str = "c1") -> dict[str, Any]:
    """What DVC notes of a small graph; `labels_from` other than c1 is an entry left from another run."""
    return {
        "cams": {
            "deps": [written("stages/cams.py", "p")],
            "params": {"params.yaml": {"base.seed": 0, "cams": {"scales": [0.5], "mirror": True}}},
            "outs": [written("data/cams.h5", "c1")],
        },
        "labels": {
            "deps": [written("data/cams.h5", labels_from)],
            "params": {"params.yaml": {"labels": {"background": 0.55}}},
            "outs": [written("data/labels.h5", "l1")],
        },
        "scores@cams": {
            "deps": [written("data/cams.h5", "c1")],
            "params": {"params.yaml": {"scores": {"background": 0.1}}},
            "outs": [written("data/scores/cams.json", "s1")],
        },
        "scores@labels": {
            "deps": [written("data/labels.h5", "l1")],
            "params": {"params.yaml": {"scores": {"background": 0.1}}},
            "outs": [written("data/scores/labels.json", "s2")],
        },
    }


ASKED: dict[str, Any] = {
    "base": {"seed": 0},
    "runtime": {"device": "cpu"},
    "cams": {"scales": [0.5], "mirror": True},
    "labels": {"background": 0.55},
    "scores": {"background": 0.1},
}


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


def experiment(lock: dict[str, Any], *, here: bool = True, **metrics: Any) -> Experiment:
    files = {f"data/scores/{name}.json": values for name, values in metrics.items()}
    return Experiment("cam-seed0", "1ad9c67", here, lock, files)


@pytest.fixture
def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git finds every file as it was."""
    monkeypatch.setattr(experiments, "changed_files", lambda *_: [])


def asked_run(parameters: dict[str, Any]) -> Run:
    return Run("cam-seed0", "cam", 0, (), parameters)


@pytest.mark.usefixtures("unchanged")
def test_an_experiment_is_judged_by_what_is_asked_alone() -> None:
    changed = asked_run(ASKED | {"labels": {"background": 0.4}})
    verdict = judge(changed, experiment(lock_of()), ["cams"])
    assert verdict.whole
    assert list(verdict.other) == ["labels.background 0.55, now 0.4"]
    verdict = judge(changed, experiment(lock_of()), ["labels", "predictions"])
    assert not verdict.whole
    assert (list(verdict.missing), list(verdict.differences)) == (
        ["predictions"],
        ["labels.background 0.55, now 0.4"],
    )


@pytest.mark.usefixtures("unchanged")
def test_the_experiment_that_answers_goes_before_the_newer_one() -> None:
    stale, fits = experiment(lock_of(labels_from="c0")), experiment(lock_of(), here=False)
    pair = best(asked_run(ASKED), [stale, fits], ["labels"])
    assert pair is not None
    assert pair[0] is fits
    assert best(asked_run(ASKED), [], ["labels"]) is None


@pytest.mark.usefixtures("unchanged")
def test_only_scores_of_its_own_are_taken() -> None:
    found = experiment(lock_of(labels_from="c0"), cams={"best_miou": 0.4, "miou": None}, labels={"miou": 0.9})
    steps = ["cams", "labels"]
    scores = scores_of(asked_run(ASKED), found, judge(asked_run(ASKED), found, steps), steps)
    assert scores == [Score("cam", 0, "cams", "best_miou", 0.4)]


def test_nested_scores_are_found() -> None:
    found = experiment({}, labels={"miou": 0.5, "instance": {"AP50": 0.25}})
    verdict = judge(asked_run(ASKED), found, [])
    scored = type(verdict)(missing=[], differences=[], other=[], scored=["labels"])
    assert [score.value for score in scores_of(asked_run(ASKED), found, scored, ["labels"])] == [0.5, 0.25]


# The command, where it refuses


@click.group(cls=Commands)
def group() -> None:
    """As in stages/weakmask.py."""


group.add_command(compare)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with parameters and a graph, in no repository."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    set_parameters(tmp_path, {"classifier.method": "cam"})
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(group, ["compare", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def commit(folder: Path) -> None:
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "start")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "cam,grad"], "there is no 'grad'; choose from cam"),
        (["--steps", "seeds"], "there is no 'seeds'; choose from cams, labels, predictions"),
        (["--name", "a b"], "--name"),
        (["--seed", "1", "-S", "labels.background=2"], "one commit at least"),
    ],
)
def test_the_command_refuses_before_any_work(folder: Path, arguments: Sequence[str], message: str) -> None:
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


def test_files_an_experiment_would_lack_are_refused_or_copied(folder: Path) -> None:
    commit(folder)
    for name in ("tracked", "ignored", "open", "added"):
        (folder / name).mkdir()
        (folder / name / "a.png").touch()
    (folder / ".gitignore").write_text("/ignored/\n/added/\n")
    (folder / "added.dvc").touch()
    run(folder, "git", "add", "tracked", ".gitignore")

    def needs(source: str) -> list[str]:
        return experiments.left_behind(
            {"dataset": {"source": source, "val": 0.2}, "runtime": {"work": "open"}}
        )

    assert [needs(name) for name in ("tracked", "ignored", "added", "nowhere", str(folder / "open"))] == [
        [],
        ["ignored"],
        [],
        [],
        [],
    ]
    with pytest.raises(UserError, match="dvc add open"):
        needs("open")
    (folder / ".git/info/exclude").write_text("/open/\n")
    with pytest.raises(UserError, match="dvc add open"):
        needs("open")


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


def test_changes_that_git_does_not_know_are_told_apart(folder: Path) -> None:
    commit(folder)
    (folder / "dvc.yaml").write_text("stages: {}  # changed\n")
    (folder / "new.py").touch()
    assert experiments.uncommitted() == (["dvc.yaml"], ["new.py"])


def test_what_dvc_says_is_passed_on(folder: Path) -> None:
    with pytest.raises(UserError, match=r"`dvc queue logs nothing` failed: .*not inside of a DVC repository"):
        experiments.dvc("queue", "logs", "nothing")


def test_ctrl_c_waits_for_dvc_to_bring_changes_back() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), experiments._deferred_interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        done = True
    assert done


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
    data.joinpath(f"scores/{sys.argv[2]}.json").write_text(json.dumps({"miou": good, "best_miou": good + 0.05}))
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
    assert {"method": "seenet", "seed": "1", "step": "cams", "score": "miou", "value": "0.62"} in rows
    before, _ = experiments.tasks()
    again = invoke(*BOTH, "--csv", "scores.csv")
    assert again.stdout == first.stdout
    assert again.stderr.count("is there already") == 4
    assert experiments.tasks()[0] == before
    shown = invoke("--show", "--steps", "cams", "--csv", "scores.csv")
    assert shown.stdout == first.stdout, "without choices, all that is there"


@pytest.mark.slow
def test_other_parameters_are_refused_forced_or_named(graph: Path) -> None:
    asked = ("--methods", "cam", "--steps", "cams")
    assert invoke(*asked).exit_code == 0
    changed = ("-S", "cams.mirror=false")
    refused = invoke(*asked, *changed)
    assert refused.exit_code == 1
    assert "cam-seed0: cams.mirror true, now false" in refused.stderr
    assert "--force replaces them" in refused.stderr
    assert "is there already" in invoke(*asked, "-S", "labels.background=0.3").stderr, "which CAMs do not see"
    named = invoke(*asked, *changed, "--name", "plain")
    assert "plain-cam-seed0 done" in named.stderr
    assert "cam-seed0 done" in invoke(*asked, *changed, "--force").stderr
    assert (
        "cam-seed0 was made otherwise than asked now: cams.mirror false, now true" in invoke("--show").stderr
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
    done = invoke("--methods", "cam", "--seed", "3", "--seed", "4", "--steps", "cams", "--jobs", "2")
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
        "from test_compare import group; group()"
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
    refused = invoke(*BOTH, "-S", "cams.mirror=false")
    assert "cam-seed0 is running with other parameters: cams.mirror true, now false" in refused.stderr
    (graph / "hold").unlink()
    done = invoke(*BOTH)
    assert done.exit_code == 0, done.output
    assert "cam-seed0 queued" not in done.stderr, "what had begun is not begun again"
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:3]] == [["cam", "2"], ["seenet", "2"]]


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


# A whole comparison of real methods

TINY = QUICK | {
    "dataset.scenes.pictures": 6,
    "classifier.backbone.name": "test_resnet",
    "classifier.backbone.weights": "none",
    "classifier.frozen_stages": 0,
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_real_methods_are_scored(folder: Path) -> None:
    names = run(ROOT, "git", "ls-files", "-co", "--exclude-standard").stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/", "docs/", "dvc.lock")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    set_parameters(folder, TINY)
    commit(folder)
    done = invoke("--methods", "cam,seenet", "--steps", "cams")
    assert done.exit_code == 0, done.output
    assert run(folder, "git", "status", "--short").stdout == ""
    assert [path.name for path in (folder / "data").iterdir()] == [".gitkeep"]
    for line in done.stdout.splitlines()[1:3]:
        assert all(0 < float(number) < 100 for number in line.split()[2:])
