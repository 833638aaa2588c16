import time

import pytest

from pipeline.browser.disagreements import Disagreements, Progress, pairs, share
from pipeline.browser.run import Run
from pipeline.browser.sample import Sample
from tests.support.runs import NAMES, run_of, write_artifact


def finished(disagreements: Disagreements, run: Run, *steps: str) -> Progress:
    for _ in range(500):
        progress = disagreements.ask(run, *steps)
        if progress.finished:
            return progress
        time.sleep(0.02)
    raise AssertionError("not finished")


def test_shares_of_all_images_are_found_in_the_background(run: Run) -> None:
    found = finished(Disagreements(), run, "labels", "truth")
    assert set(found.values) == set(NAMES)
    assert found.values["f"] == share(Sample(run, "f"), ("labels", "truth"), 0)
    assert found.problem is None
    assert all(0 < value < 0.3 for value in found.values.values())


def test_another_question_goes_first_and_both_are_answered(run: Run) -> None:
    disagreements = Disagreements()
    disagreements.ask(run, "seeds", "labels")
    assert finished(disagreements, run, "cams", "labels").values
    assert finished(disagreements, run, "labels", "seeds").values == pytest.approx(
        finished(disagreements, run, "seeds", "labels").values
    )


def test_a_replaced_artifact_is_compared_again_and_a_damaged_one_named(folder) -> None:
    run, disagreements = run_of(folder), Disagreements()
    before = dict(finished(disagreements, run, "predictions", "labels").values)
    write_artifact(folder, "labels")
    after = finished(disagreements, run, "predictions", "labels").values
    assert all(before[name] > after[name] == 0 for name in NAMES)
    (folder / "labels.h5").write_bytes(b"")
    assert not finished(disagreements, run, "predictions", "labels").values


def test_only_pairs_of_what_exists_are_offered(folder) -> None:
    (folder / "seeds.h5").unlink()
    offered = pairs(run_of(folder))
    assert ("labels", "truth") in offered
    assert not any("seeds" in pair for pair in offered)
