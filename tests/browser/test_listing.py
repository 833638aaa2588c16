from pathlib import Path

import pytest

from pipeline.browser.disagreements import Disagreements
from pipeline.browser.run import SCORED, Run
from pipeline.browser.state import Measures, Query, Selection, near, select
from pipeline.views.report_data import TITLES
from tests.support.runs import NAMES, run_of, write_table

VALUES = {"a one": 0.9, "b/two": 0.2, "f": 0.5}
MEASURES = Measures({"labels": VALUES, "disagreement": VALUES}, frozenset({"disagreement"}))


def selected(run: Run, **parts: object) -> list[str]:
    return select(run.index, Query(**parts), MEASURES)  # type: ignore[arg-type]


def test_filters(run: Run) -> None:
    assert selected(run) == sorted(NAMES)
    assert selected(run, text="ONE") == ["a one"]
    assert selected(run, text="日") == ["d-日本"]
    assert selected(run, split="val") == ["c été <b>", "f"]
    assert selected(run, classes=("cat", "日本")) == ["c été <b>", "f"]
    assert selected(run, classes=("no such class",)) == sorted(NAMES)
    assert selected(run, by="labels", low=20, high=50) == ["b/two", "f"]
    assert selected(run, by="labels") == sorted(NAMES)


def test_worst_first_and_images_without_a_value_last(run: Run) -> None:
    rest = ["c été <b>", "d-日本", "e100%"]
    assert selected(run, sort="labels") == ["b/two", "f", "a one", *rest]
    assert selected(run, sort="labels", reverse=True) == ["a one", "f", "b/two", *rest]
    assert selected(run, sort="disagreement") == ["a one", "f", "b/two", *rest]
    assert selected(run, reverse=True) == sorted(NAMES, reverse=True)


def test_near_ids() -> None:
    names = [f"scene_{n:06d}" for n in range(10_000)]
    assert near(names, "scene_00001")[0] == "scene_000010"
    assert "scene_000123" in near(["scene_000123", "other"], "scene_000132")
    assert near(["abc"], "zzzzzzzz") == []


def test_gains_of_another_run_can_be_sorted_by(run: Run, folder: Path) -> None:
    write_table(folder, "labels", best=1.0)
    selection = Selection([run, run_of(folder, "other")], Disagreements())
    assert selection.titles()["gain:labels:other"] == "gain of pseudo-labels, other"
    gains = selection.measures(Query()).values["gain:labels:other"]
    assert gains["f"] == pytest.approx(0.1)


def test_problems_are_named_once(folder: Path) -> None:
    (folder / "cams.h5").write_bytes(b"no HDF5")
    (folder / "scores/labels/images.csv").write_text("nothing")
    selection = Selection([run_of(folder)], Disagreements())
    found = selection.problems()
    assert len(found) == 2
    assert "cams.h5" in found[0]
    assert "labels/images.csv" in found[1]
    assert selection.names(Query(sort="labels")) == sorted(NAMES)


@pytest.mark.parametrize("step", SCORED)
def test_every_scored_step_sorts(folder: Path, step: str) -> None:
    (folder / f"scores/{step}/images.csv").write_text("id,miou\nf,0.2\nb/two,0.1\n")
    selection = Selection([run_of(folder)], Disagreements())
    assert selection.names(Query(sort=step))[:2] == ["b/two", "f"]
    assert selection.titles()[step] == f"mIoU of {TITLES[step].lower()}"
