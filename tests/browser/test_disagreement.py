import time
from pathlib import Path

import pytest

from pipeline.browser.disagreement import DisagreementJob, Progress, available_pairs, disagreement
from pipeline.browser.run import Run
from pipeline.browser.sample import Sample
from tests.support.runs import NAMES, run_of, write_artifact


def finished(job: DisagreementJob, run: Run, one: str, other: str) -> Progress:
    for _ in range(500):
        progress = job.request(run, one, other)
        if progress.finished:
            return progress
        time.sleep(0.02)
    raise AssertionError("not finished")


@pytest.mark.parametrize("step", ["labels", "walk"])
def test_all_images_are_compared_in_the_background(run: Run, step: str) -> None:
    found = finished(DisagreementJob(), run, step, "truth")
    assert set(found.values) == set(NAMES)
    assert found.values["f"] == disagreement(Sample(run, "f"), step, "truth")
    assert found.problem is None
    assert all(0 < value < 0.3 for value in found.values.values())


def test_latest_request_goes_first_and_both_are_answered(run: Run) -> None:
    job = DisagreementJob()
    job.request(run, "seeds", "labels")
    assert finished(job, run, "cams", "labels").values
    assert finished(job, run, "labels", "seeds").values == pytest.approx(
        finished(job, run, "seeds", "labels").values
    )


def test_replaced_artifact_is_compared_again_and_a_damaged_one_is_not(folder: Path) -> None:
    run, job = run_of(folder), DisagreementJob()
    before = dict(finished(job, run, "predictions", "labels").values)
    write_artifact(folder, "labels")
    after = finished(job, run, "predictions", "labels").values
    assert all(before[name] > after[name] == 0 for name in NAMES)
    (folder / "labels.h5").write_bytes(b"")
    assert not finished(job, run, "predictions", "labels").values


def test_missing_parameter_is_the_problem(folder: Path) -> None:
    run = run_of(folder)
    run._parameters = dict
    found = finished(DisagreementJob(), run, "cams", "labels")
    assert not found.values
    assert "scores.background: not in the run's parameters" in (found.problem or "")


def test_only_pairs_of_what_exists_are_offered(folder: Path) -> None:
    (folder / "seeds.h5").unlink()
    offered = available_pairs(run_of(folder))
    assert offered["walk-truth"] == "random walk and ground truth"
    assert not any("seeds" in pair for pair in offered)
