"""URLs of pages, and what sorts and filters the grid."""

from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from pipeline.browser.disagreement import DisagreementJob
from pipeline.browser.live_walk import WalkSettings
from pipeline.browser.run import SCORED, Run
from pipeline.browser.state import (
    Filter,
    Selection,
    SortKeys,
    ViewState,
    grid_url,
    image_url,
    read_filter,
    read_view,
    select,
    write_filter,
    write_view,
)
from pipeline.views.report_data import TITLES
from tests.support.runs import NAMES, run_of, write_table

FILTERS = [
    Filter(),
    Filter(
        "a & b=?#", ("cat", "dog, or wolf"), "val", "labels", True, "cams", 10, 55.5, show="labels"
    ),
    Filter(sort="disagreement", differ="walk-truth"),
]
VIEWS = [
    ViewState(),
    ViewState({}, bare=True),
    ViewState({"cams": 0.35, "truth": 1.0}, 0.5, panes=("workspace", "a/b")),
    ViewState(settings=WalkSettings(2, 0.31, 7.5, 64, 0.0)),
]
VALUES = {"a one": 0.9, "b/two": 0.2, "f": 0.5}
KEYS = SortKeys({"labels": VALUES, "disagreement": VALUES}, frozenset({"disagreement"}))


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", NAMES)
def test_url_restores_filter_and_view(name: str, filter_: Filter, view: ViewState) -> None:
    parts = urlsplit(image_url(name, filter_, view))
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    assert unquote(parts.path) == f"/image/{name}"
    assert (read_filter(given), read_view(given)) == (filter_, view)


def test_new_page_has_a_plain_url() -> None:
    assert image_url("f", Filter(), ViewState()) == "/image/f"
    assert grid_url(Filter(), ViewState()) == "/"
    assert write_filter(Filter()) == write_view(ViewState()) == {}


@pytest.mark.parametrize(
    "given",
    [
        {"layers": "nothing:1,cams:abc,labels:7"},
        {"threshold": "2"},
        {"threshold": "nan"},
        {"steps": "-1"},
        {"map": "x"},
        {"low": "inf", "differ": "a-b-c", "image": "x"},
    ],
)
def test_invalid_parts_are_dropped(given: dict[str, str]) -> None:
    view = read_view(given)
    assert view.settings == WalkSettings()
    assert set(view.layers or {}) <= {"cams", "labels"}
    assert set((view.layers or {}).values()) <= {1.0}
    assert read_filter(given) == Filter()


def selected(run: Run, **parts: object) -> list[str]:
    return select(run.index, Filter(**parts), KEYS)  # type: ignore[arg-type]


def test_filters(run: Run) -> None:
    assert selected(run) == sorted(NAMES)
    assert selected(run, text="ONE") == ["a one"]
    assert selected(run, text="日") == ["d-日本"]
    assert selected(run, split="val") == ["c été <b>", "f"]
    assert selected(run, classes=("cat", "日本")) == ["c été <b>", "f"]
    assert selected(run, classes=("no such class",)) == sorted(NAMES)
    assert selected(run, by="labels", low=20, high=50) == ["b/two", "f"]
    assert selected(run, by="labels") == sorted(NAMES)


def test_worst_come_first_and_images_without_a_value_last(run: Run) -> None:
    rest = ["c été <b>", "d-日本", "e100%"]
    assert selected(run, sort="labels") == ["b/two", "f", "a one", *rest]
    assert selected(run, sort="labels", reverse=True) == ["a one", "f", "b/two", *rest]
    assert selected(run, sort="disagreement") == ["a one", "f", "b/two", *rest]
    assert selected(run, reverse=True) == sorted(NAMES, reverse=True)


def test_gains_of_another_run_sort(run: Run, folder: Path) -> None:
    write_table(folder, "labels", best=1.0)
    selection = Selection([run, run_of(folder, "other")], DisagreementJob())
    assert selection.titles()["gain:labels:other"] == "gain of pseudo-labels, other"
    gains = selection.keys(Filter()).values["gain:labels:other"]
    assert gains["f"] == pytest.approx(0.1)


def test_problems_are_named_once(folder: Path) -> None:
    (folder / "cams.h5").write_bytes(b"no HDF5")
    (folder / "scores/labels/images.csv").write_text("nothing")
    selection = Selection([run_of(folder)], DisagreementJob())
    cams, labels = selection.problems()
    assert "cams.h5" in cams
    assert "labels/images.csv" in labels
    assert selection.names(Filter(sort="labels")) == sorted(NAMES)


@pytest.mark.parametrize("step", SCORED)
def test_every_scored_step_sorts(folder: Path, step: str) -> None:
    (folder / f"scores/{step}/images.csv").write_text("id,miou\nf,0.2\nb/two,0.1\n")
    selection = Selection([run_of(folder)], DisagreementJob())
    assert selection.names(Filter(sort=step))[:2] == ["b/two", "f"]
    assert selection.titles()[step] == f"mIoU of {TITLES[step].lower()}"
