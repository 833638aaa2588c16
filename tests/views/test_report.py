import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from pipeline.views.gallery import Example, FailureExample, Found
from pipeline.views.report import percent, plain, points, render, render_diff
from pipeline.views.report_data import ReportData, StepScores

EVIL = "<script>alert('x')</script>"
IMAGE = np.full((30, 40, 3), (200, 40, 40), np.uint8)


def example(name: str) -> Example:
    return Example(
        name,
        {"image": IMAGE, "ground truth": 255 - IMAGE},
        {"mIoU": 0.25},
        [(EVIL, (1, 2, 3))],
        f"n {EVIL}",
    )


def example_data() -> ReportData:
    maps: dict[str, float | None] = {
        "miou": 0.5,
        "best_miou": 0.612,
        "best_threshold": 0.21,
        "threshold": 0.15,
    }
    return ReportData(
        [
            StepScores("cams", "train", 3, maps),
            StepScores("seeds", "train", 3, {"miou": 0.9, "coverage": 0.4}),
            StepScores("labels", "train", 3, {"miou": 0.7, "AP50": 0.377, "AP": 0.2}),
            StepScores("predictions", "val", 2, {"miou": 0.65}),
        ],
        {
            step: {"background": {"iou": 0.9}, EVIL: {"iou": None, "AP50": 0.3}}
            for step in ("cams", "labels")
        },
        {"labels": {"missed": {"count": 2, "images": 1, "out_of": 5}}},
        {"cams": [(0.1, 0.2), (0.21, 0.612), (0.5, 0.1)]},
        {"labels": {"a": 0.5}},
        {"classifier": {"method": EVIL, "cam": {"scales": [0.5, 1.0], "path": None}}, "seed": 3},
        {"python": "3.11.7", "numpy": "2.0"},
    )


def other_data() -> ReportData:
    """Return the data with better pseudo-labels, fewer failures, and without a final model."""
    first = example_data()
    steps = [one for one in first.steps if one.step not in ("labels", "predictions")]
    return replace(
        first,
        steps=[*steps, StepScores("labels", "train", 3, {"miou": 0.76, "AP50": 0.4})],
        failures={"labels": {"missed": {"count": 1, "images": 1, "out_of": 5}}},
        parameters={
            "classifier": {"method": "cam", "cam": {"scales": [0.5, 1.0], "path": None}},
            "base": 1,
        },
        images={"labels": {"a": 0.7, "b": 0.1}},
    )


def arguments() -> dict[str, Any]:
    names = ("background", "cat", EVIL)
    return {
        "title": f"Report of {EVIL}",
        "lead": EVIL,
        "data": example_data(),
        "panels": {"cams": IMAGE},
        "curves": {"classifier": [{"step": i, "loss": 1 / (i + 1)} for i in range(9)], EVIL: []},
        "examples": [example(f"a {EVIL}")],
        "failures": {
            "labels": [
                FailureExample("missed", 2, 1, 5, example("m1")),
                FailureExample("split", 0, 0, 5, None),
            ]
        },
        "ranked": {
            "labels": {
                "worst": [example(f"w{n}") for n in (1, 2, 3, 4)],
                "median": [],
                "best": [example("b1")],
            },
            "predictions": {"worst": []},
        },
        "confusions": {
            "cams": [
                {"actual": a, "predicted": p, "pixels": str(10 * i + j)}
                for i, a in enumerate(names)
                for j, p in enumerate(names)
            ]
        },
    }


class Tags(HTMLParser):
    """Collects tags and attributes and checks that all elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "link", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_one_file_without_network_or_script() -> None:
    page = render(**arguments())
    assert page == render(**arguments())
    assert not re.search(r"https?://|//[a-z]+\.|url\(|@import", page)
    tags = parsed(page)
    assert {tag for tag, _ in tags.seen} & {"script", "link", "iframe", "object"} == set()
    references = [
        value for _, attrs in tags.seen for key, value in attrs.items() if key in {"src", "href"}
    ]
    anchors = [value for value in references if str(value).startswith("#")]
    assert {f'id="{value[1:]}"' in page for value in anchors if value} == {True}
    references = [value for value in references if value not in anchors]
    assert len(references) == 1 + 2 * 7
    assert all(
        value is not None and value.startswith("data:image/webp;base64,") for value in references
    )
    assert not [key for _, attrs in tags.seen for key in attrs if key.startswith("on")]


def test_every_name_is_escaped() -> None:
    page = render(**arguments())
    assert EVIL not in page
    assert "<script" not in page
    # Title twice, lead, class table, keys and notes of five images, an id, parameter, confusion.
    assert page.count("&lt;script&gt;") >= 18


def text_of(page: str) -> str:
    """The words of a page, each after one space."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S).split())


def test_each_step_says_what_it_gained_and_over_what() -> None:
    text = text_of(render(**arguments()))
    places = [
        text.index(name)
        for name in (
            "cams class activation maps; 3",
            "seeds confident pixels; 3",
            "labels pseudo-labels; 3",
            "predictions final models; 2",
        )
    ]
    assert places == sorted(places)
    for words in (
        "61.2 at the best threshold, 0.21; 50.0 at the threshold in use, 0.15",
        "90.0 +28.8 over cams (on fewer pixels); on the 40.0 % of the pixels that are labeled",
        "70.0 instances: AP50 37.7, AP 20.0",  # there is no walk to gain over
        "65.0 −5.0 over labels (of other images, train)",
    ):
        assert words in text


def test_failures_images_and_settings_stand_where_they_belong() -> None:
    page = render(**arguments())
    text = text_of(page)
    for words in (
        "2 of 5 objects with less than a quarter of their pixels labeled, in 1 image.",
        "None: split instances (of 5).",
        "The worst images of labels mIoU in percent",
        "more of the worst w4",
        "best b1",
        "scales 0.5, 1.0 path –",
        "python 3.11.7 numpy 2.0",
    ):
        assert words in text
    assert "The worst images of predictions" not in text
    assert " median " not in text
    assert page.count("<polyline") == 2
    assert page.count('class="ring"') == 0, "0.15 is not on this curve"


def test_nothing_to_report_is_still_a_page() -> None:
    found = Found({"cat": (3, 2, 0.125), EVIL: (1, 0, 0.0)}, ["a", EVIL], ["b"])
    page = render(title="empty", lead="", data=ReportData([]), found={"labels": found})
    parsed(page)
    assert EVIL not in page
    for words in ("cat 3 2 12.5", "1 0 –", "Empty: 2 images", "missing: 1 image"):
        assert words in text_of(page)
    assert "<svg" not in page
    assert "nothing is scored" in page


@pytest.mark.parametrize(
    ("written", "values"),
    [
        (percent, {"–": None, "0.0": 0.0, "50.0": 0.4996, "100.0": 1}),
        (points, {"–": None, "±0.0": -0.0001, "+10.0": 0.1, "−1.6": -0.016}),
        (plain, {"–": "", "yes": True, "none": [], "1, 2.5, x": [1, [2.5, "x"]], "0": 0}),
    ],
)
def test_values_as_they_are_written(written: Callable[[Any], str], values: dict[str, Any]) -> None:
    assert [written(value) for value in values.values()] == list(values)


def test_comparison_is_one_file_that_escapes_every_name() -> None:
    page = render_diff(example_data(), other_data(), ("HEAD", f"x {EVIL}"))
    tags = parsed(page)
    assert EVIL not in page
    assert not re.search(r"https?://|url\(|@import|<script", page)
    assert not [key for _, attrs in tags.seen for key in attrs if key in ("src", "href")]
    text = text_of(page)
    for words in ("labels 70.0 76.0 +6.0", "missed objects 2 1 −1", "a 50.0 70.0 +20.0"):
        assert words in text
    assert page == render_diff(example_data(), other_data(), ("HEAD", f"x {EVIL}"))


def test_reports_without_scores_can_be_compared() -> None:
    page = render_diff(ReportData([]), ReportData([]), ("A", "B"))
    parsed(page)
    assert "Neither report has scores" in page
    assert "No parameter differs" in page
