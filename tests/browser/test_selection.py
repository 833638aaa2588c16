"""What sorts and filters the grid."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.browser.run import SCORED, Run
from pipeline.browser.sample import Sample
from pipeline.browser.selection import (
    Disagreements,
    Filter,
    Progress,
    Selection,
    available_pairs,
    disagreement,
    read_filter,
)
from tests.support.runs import NAMES, run_of, write_artifact, write_table


def test_query_is_read_and_invalid_parts_are_dropped() -> None:
    query = {"q": "a&b", "class": "cat|日本", "split": "val", "sort": "walk", "reverse": "1"}
    expected = Filter("a&b", ("cat", "日本"), "val", "", "walk", True)
    assert read_filter(query) == expected
    assert read_filter({**query, "differ": "walk-truth"}) == replace(expected, differ="walk-truth")
    assert read_filter({"differ": "a-b-c", "page": "x"}) == Filter()


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({}, sorted(NAMES)),
        ({"reverse": True}, sorted(NAMES, reverse=True)),
        ({"text": "ONE"}, ["a one"]),
        ({"text": "日"}, ["d-日本"]),
        ({"split": "val"}, ["c été <b>", "f"]),
        ({"classes": ("cat", "日本")}, ["c été <b>", "f"]),
        ({"classes": ("no such class",)}, sorted(NAMES)),
        ({"failure": "labels:missed"}, ["b/two", "f"]),
        ({"failure": "labels:split"}, []),
        ({"failure": "cams:missed"}, []),
        ({"sort": "labels"}, ["b/two", "f", "a one", "c été <b>", "d-日本", "e100%"]),
        (
            {"sort": "labels", "reverse": True},
            ["a one", "f", "b/two", "c été <b>", "d-日本", "e100%"],
        ),
        ({"sort": "nothing"}, sorted(NAMES)),
    ],
)
def test_filters_and_orders(folder: Path, parts: dict, names: list[str]) -> None:
    scores = folder / "scores/labels"
    (scores / "images.csv").write_text("id,miou\na one,0.9\nb/two,0.2\nf,0.5\n")
    (scores / "failures.csv").write_text("id,missed,split\na one,0,\nb/two,2,\nf,1,\n")
    assert Selection([run_of(folder)]).names(Filter(**parts)) == names


@pytest.mark.parametrize("step", SCORED)
def test_every_scored_step_sorts_and_its_gain_in_another_run(
    run: Run, folder: Path, step: str
) -> None:
    write_table(folder, step, best=1.0)
    selection = Selection([run, run_of(folder, "other")])
    assert selection.titles()[step] == f"mIoU of {step}"
    assert selection.titles()[f"gain:{step}:other"] == f"gain of {step} in other"
    gains = selection.sort_values(Filter(sort=f"gain:{step}:other"))
    assert gains["f"] == pytest.approx(0.1)
    assert selection.names(Filter(sort=step))[0] == "f"


def compared(run: Run, pair: str) -> Progress:
    disagreements = Disagreements()
    while (progress := disagreements.progress(run, pair)).done < progress.total:
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
    assert offered["walk-truth"] == "walk and truth"
    assert not any("seeds" in pair for pair in offered)
