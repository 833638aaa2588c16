"""What sorts and filters the grid."""

from pathlib import Path

import pytest

from pipeline.browser.run import SCORED, Run
from pipeline.browser.selection import Filter, Selection, read_filter
from tests.support.runs import NAMES, run_of, write_table


def test_query_is_read_and_what_is_no_filter_ignored() -> None:
    query = {"q": "a&b", "class": "cat|日本", "split": "val", "sort": "walk", "reverse": "1"}
    expected = Filter("a&b", ("cat", "日本"), "val", "", "walk", True)
    assert read_filter(query) == expected
    assert read_filter({"sorted": "walk", "page": "x"}) == Filter()


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
