"""URLs of pages."""

from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from pipeline.browser.sample import WalkSettings
from pipeline.browser.state import (
    Filter,
    ViewState,
    grid_url,
    image_url,
    read_filter,
    read_view,
    write_filter,
    write_view,
)

FILTERS = [
    Filter(),
    Filter("a & b=?#", ("cat", "dog, or wolf"), "val", "labels", True, show="labels"),
    Filter(sort="disagreement", differ="walk-truth"),
]
VIEWS = [
    ViewState(),
    ViewState({}, bare=True),
    ViewState({"cams": 0.35, "truth": 1.0}, 0.5, panes=("workspace", "a/b")),
    ViewState(settings=WalkSettings(2, 0.31, 7.5, 64, 0.0)),
]


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize("view", VIEWS)
def test_url_restores_filter_and_view(filter_: Filter, view: ViewState) -> None:
    name = "c été <b>/100%"
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
        {"differ": "a-b-c", "image": "x"},
    ],
)
def test_invalid_parts_are_dropped(given: dict[str, str]) -> None:
    view = read_view(given)
    assert view.settings == WalkSettings()
    assert set(view.layers or {}) <= {"cams", "labels"}
    assert set((view.layers or {}).values()) <= {1.0}
    assert read_filter(given) == Filter()
