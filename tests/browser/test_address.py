from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from pipeline.browser.live_walk import Settings
from pipeline.browser.state import (
    Query,
    View,
    grid_address,
    image_address,
    read_query,
    read_view,
    write_query,
    write_view,
)
from tests.support.runs import NAMES

QUERIES = [
    Query(),
    Query(
        "a & b=?#", ("cat", "dog, or wolf"), "val", "labels", True, "cams", 10, 55.5, show="labels"
    ),
    Query(sort="disagreement", differ=("labels", "truth")),
]
VIEWS = [
    View(),
    View({}, bare=True),
    View({"cams": 0.35, "truth": 1.0}, 0.5, panes=("workspace", "a/b")),
    View(settings=Settings(2, 0.31, 7.5, 64, 0.0)),
]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", NAMES)
def test_an_address_says_it_all(name: str, query: Query, view: View) -> None:
    parts = urlsplit(image_address(name, query, view))
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    assert unquote(parts.path) == f"/image/{name}"
    assert (read_query(given), read_view(given)) == (query, view)


def test_a_new_page_has_a_plain_address() -> None:
    assert image_address("f", Query(), View()) == "/image/f"
    assert grid_address(Query(), View()) == "/"
    assert write_query(Query()) == write_view(View()) == {}


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
def test_nonsense_is_left_out(given: dict[str, str]) -> None:
    view = read_view(given)
    assert view.settings == Settings()
    assert set(view.layers or {}) <= {"cams", "labels"}
    assert set((view.layers or {}).values()) <= {1.0}
    assert read_query(given) == Query()
