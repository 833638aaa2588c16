"""What sorts and filters the grid."""

from pathlib import Path

import pytest

from pipeline.browser.run import SCORED, Run
from pipeline.browser.sample import Sample
from pipeline.browser.selection import (
    Disagreements,
    Progress,
    Selection,
    SortKeys,
    available_pairs,
    disagreement,
    select,
)
from pipeline.browser.state import Filter
from pipeline.views.report_data import TITLES
from tests.support.runs import NAMES, run_of, write_artifact, write_table

VALUES = {"a one": 0.9, "b/two": 0.2, "f": 0.5}
KEYS = SortKeys({"labels": VALUES, "disagreement": VALUES}, frozenset({"disagreement"}))


def selected(run: Run, **parts: object) -> list[str]:
    return select(run.index, Filter(**parts), KEYS)  # type: ignore[arg-type]


def test_filters(run: Run) -> None:
    assert selected(run) == sorted(NAMES)
    assert selected(run, text="ONE") == ["a one"]
    assert selected(run, text="日") == ["d-日本"]
    assert selected(run, split="val") == ["c été <b>", "f"]
    assert selected(run, classes=("cat", "日本")) == ["c été <b>", "f"]
    assert selected(run, classes=("no such class",)) == sorted(NAMES)


def test_worst_come_first_and_images_without_a_value_last(run: Run) -> None:
    rest = ["c été <b>", "d-日本", "e100%"]
    assert selected(run, sort="labels") == ["b/two", "f", "a one", *rest]
    assert selected(run, sort="labels", reverse=True) == ["a one", "f", "b/two", *rest]
    assert selected(run, sort="disagreement") == ["a one", "f", "b/two", *rest]
    assert selected(run, reverse=True) == sorted(NAMES, reverse=True)


def test_gains_of_another_run_sort(run: Run, folder: Path) -> None:
    write_table(folder, "labels", best=1.0)
    selection = Selection([run, run_of(folder, "other")], Disagreements())
    assert selection.titles()["gain:labels:other"] == "gain of pseudo-labels, other"
    gains = selection.keys(Filter()).values["gain:labels:other"]
    assert gains["f"] == pytest.approx(0.1)


def test_problems_are_named_once(folder: Path) -> None:
    (folder / "cams.h5").write_bytes(b"no HDF5")
    (folder / "scores/labels/images.csv").write_text("nothing")
    selection = Selection([run_of(folder)], Disagreements())
    cams, labels = selection.problems()
    assert "cams.h5" in cams
    assert "labels/images.csv" in labels
    assert selection.names(Filter(sort="labels")) == sorted(NAMES)


@pytest.mark.parametrize("step", SCORED)
def test_every_scored_step_sorts(folder: Path, step: str) -> None:
    (folder / f"scores/{step}/images.csv").write_text("id,miou\nf,0.2\nb/two,0.1\n")
    selection = Selection([run_of(folder)], Disagreements())
    assert selection.names(Filter(sort=step))[:2] == ["b/two", "f"]
    assert selection.titles()[step] == f"mIoU of {TITLES[step].lower()}"


def compared(run: Run, pair: str) -> Progress:
    disagreements = Disagreements()
    while not (progress := disagreements.progress(run, pair)).finished:
        disagreements.advance(run, pair)
    return progress


@pytest.mark.parametrize("step", ["labels", "walk"])
def test_steps_of_all_images_are_compared(run: Run, step: str) -> None:
    found = compared(run, f"{step}-truth")
    assert set(found.values) == set(NAMES)
    assert found.values["f"] == disagreement(Sample(run, "f"), step, "truth")
    assert found.problem is None
    assert all(0 < value < 0.3 for value in found.values.values())


def test_comparison_goes_on_where_it_stopped(run: Run) -> None:
    disagreements = Disagreements()
    disagreements.advance(run, "seeds-labels", 0)
    before = disagreements.progress(run, "seeds-labels").done
    disagreements.advance(run, "seeds-labels", 60)
    assert before < disagreements.progress(run, "seeds-labels").done == len(NAMES)


def test_replaced_artifact_is_compared_again_and_a_damaged_one_is_not(folder: Path) -> None:
    run = run_of(folder)
    before = compared(run, "labels-predictions").values
    write_artifact(folder, "labels")
    after = compared(run, "labels-predictions").values
    assert all(before[name] > after[name] == 0 for name in NAMES)
    (folder / "labels.h5").write_bytes(b"")
    assert not compared(run, "labels-predictions").values


def test_missing_parameter_is_the_problem(folder: Path) -> None:
    run = run_of(folder)
    run._parameters = dict
    found = compared(run, "cams-labels")
    assert not found.values
    assert "scores.background: not in the run's parameters" in (found.problem or "")


def test_only_pairs_of_what_exists_are_offered(folder: Path) -> None:
    (folder / "seeds.h5").unlink()
    offered = available_pairs(run_of(folder))
    assert offered["walk-truth"] == "random walk and ground truth"
    assert not any("seeds" in pair for pair in offered)
