"""Whether an experiment answers what is asked, and which of its scores are its own."""

from typing import Any

import pytest

from stages.experiments import experiments
from stages.experiments.experiments import Experiment
from stages.experiments.plan import Run
from stages.experiments.table import Score
from stages.experiments.verdict import best, judge, scores_of
from tests.support.locks import ASKED, lock_of


def experiment(lock: dict[str, Any], *, here: bool = True, **metrics: Any) -> Experiment:
    files = {f"data/scores/{name}.json": {name: values} for name, values in metrics.items()}
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
    found = experiment(
        lock_of(labels_from="c0"), cams={"best_miou": 0.4, "miou": None}, labels={"miou": 0.9}
    )
    steps = ["cams", "labels"]
    scores = scores_of(asked_run(ASKED), found, judge(asked_run(ASKED), found, steps), steps)
    assert scores == [Score("cam", 0, "cams", "best_miou", 0.4)]


def test_every_score_of_a_step_is_found() -> None:
    found = experiment({}, labels={"miou": 0.5, "AP50": 0.25})
    verdict = judge(asked_run(ASKED), found, [])
    scored = type(verdict)(missing=[], differences=[], other=[], scored=["labels"])
    assert [score.value for score in scores_of(asked_run(ASKED), found, scored, ["labels"])] == [
        0.5,
        0.25,
    ]
