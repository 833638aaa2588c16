import base64
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.metrics.instance import InstanceScores
from pipeline.metrics.semantic import Confusion
from pipeline.views.report import Example, data_uri, percent, render

EVIL = "<script>alert('x')</script>"
CLASSES = ("cat", EVIL)


def example(name: str) -> Example:
    picture = np.full((30, 40, 3), (200, 40, 40), np.uint8)
    return Example(name, {"picture": picture, "truth": 255 - picture}, {"mIoU": 0.25}, [(EVIL, (1, 2, 3))])


def arguments() -> dict[str, Any]:
    confusion = Confusion(CLASSES, np.array([[50, 5, 0], [5, 20, 5], [0, 10, 30]]))
    whole = confusion.scores()
    per_class = {name: row["iou"] for name, row in whole.pop("per_class").items()}
    instance = InstanceScores(CLASSES).compute()
    instance.pop("per_class")
    names = ("background", *CLASSES)
    return {
        "title": f"Report of {EVIL}",
        "scores": {
            "labels": {"pictures": 3, **whole, "iou": per_class, "instance": {**instance, "AP50": 0.377}},
            "cams": {"pictures": 3, **whole, "iou": per_class, "best_miou": 0.612, "best_threshold": 0.21},
            "predictions": {},
        },
        "curves": {"classifier": [{"step": i, "loss": 1 / (i + 1)} for i in range(9)], EVIL: []},
        "rows": [example(f"a {EVIL}")],
        "worst": {"labels": [example("w1"), example("w2")], "predictions": []},
        "parameters": {
            "classifier": {"method": EVIL, "cam": {"scales": [0.5, 1.0], "path": None}},
            "seed": 3,
        },
        "confusions": {
            "cams": [
                {"actual": a, "predicted": p, "pixels": str(confusion.counts[i, j])}
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
    assert not re.search(r"https?://|//[a-z]+\.|url\(|@import", page)
    tags = parsed(page)
    assert {tag for tag, _ in tags.seen} & {"script", "link", "iframe", "object"} == set()
    references = [value for _, attrs in tags.seen for key, value in attrs.items() if key in {"src", "href"}]
    assert len(references) == 6
    assert all(value is not None and value.startswith("data:image/webp;base64,") for value in references)
    assert not [key for _, attrs in tags.seen for key in attrs if key.startswith("on")]


def test_every_name_is_escaped() -> None:
    page = render(**arguments())
    assert EVIL not in page
    assert "<script" not in page
    # Title twice, class table, picture id, its two alternative texts, its key, parameter, confusion.
    assert page.count("&lt;script&gt;") >= 9


def test_numbers_stand_where_they_belong() -> None:
    page = render(**arguments())
    assert (
        page.index("Activation maps</th>") < page.index("Pseudo-labels</th>") < page.index("Final model</th>")
    )
    for text in ("61.2", "0.21", "37.7", "Worst pictures: pseudo-labels", ">w1<", "scales", "0.5, 1.0"):
        assert text in page
    assert "Worst pictures: final model" not in page
    assert page.count("<polyline") == 1


def test_light_and_dark_and_narrow() -> None:
    page = render(**arguments())
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_the_same_page_for_the_same_input() -> None:
    assert render(**arguments()) == render(**arguments())


def test_nothing_to_report_is_still_a_page() -> None:
    page = render(title="empty", scores={}, curves={}, rows=[], worst={}, parameters={})
    parsed(page)
    assert "<table" not in page
    assert "<svg" not in page


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.0, "0.0"), (0.4996, "50.0"), (1, "100.0")])
def test_percent(value: float | None, text: str) -> None:
    assert percent(value) == text


def test_panels_survive_the_page() -> None:
    panel = np.full((20, 30, 3), (10, 200, 90), np.uint8)
    data = base64.b64decode(data_uri(panel).removeprefix("data:image/webp;base64,"))
    back = np.array(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert back.shape == panel.shape
    assert np.abs(back - panel).max() < 8
