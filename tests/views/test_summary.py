"""What a report says in numbers, out of tables and back from its file."""

import json
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.metrics.failures import KINDS
from pipeline.metrics.steps import STEPS
from pipeline.views import report_data as summaries
from pipeline.views.report_data import TITLES, Summary, load, parse, summarize
from tests.views.test_report import summary


def tables(images: str = "2") -> dict[str, list[dict[str, str]]]:
    """Tables as csv readers give them."""
    return {
        "summary": [
            {"score": n, "value": v} for n, v in (("images", images), ("miou", "0.5"), ("AP", ""))
        ],
        "classes": [{"class": "cat", "iou": "0.4", "AP50": ""}],
        "images": [{"id": "a", "miou": "0.25"}, {"id": "b", "miou": ""}],
        "failure_kinds": [{"kind": "missed", "count": "1", "images": "1", "out_of": "3"}],
        "curve": [{"threshold": "0.1", "miou": "0.5"}],
    }


def test_tables_become_numbers() -> None:
    made = summarize(
        {"predictions": tables("0"), "labels": tables(), "cams": tables()},
        {"labels": "train"},
        {"base": {"seed": 3}},
        {"python": "3"},
    )
    assert [scored_step.step for scored_step in made.ladder] == ["cams", "labels"], (
        "in order, and what has no masks is left out"
    )
    labels = made.scored_step("labels")
    assert labels is not None
    assert (labels.split, labels.images, labels.scores) == ("train", 2, {"miou": 0.5, "AP": None})
    assert made.classes["labels"] == {"cat": {"iou": 0.4, "AP50": None}}
    assert made.failures["labels"] == {"missed": {"count": 1, "images": 1, "out_of": 3}}
    assert made.images["labels"] == {"a": 0.25}
    assert made.curves["cams"] == [(0.1, 0.5)]


def test_maps_stand_for_their_best_threshold_and_gains_are_over_whole_images() -> None:
    made = summary()
    gains = {scored_step.step: made.gain(scored_step) for scored_step in made.ladder}
    assert gains["cams"] is None
    assert gains["seeds"] == pytest.approx(0.9 - 0.612)
    assert gains["labels"] is None, "there is no walk to gain over"
    assert gains["predictions"] == pytest.approx(-0.05)


def test_the_file_holds_it_all(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(summary().json())
    assert load(path).json() == summary().json()
    assert load(path).ladder == summary().ladder


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "damaged"),
        ("[1]", "damaged"),
        ("{}", "not the numbers of a report"),
        (
            json.dumps({"format": "weakmask/report", "version": 9}),
            "version 9, this program reads 1",
        ),
        (json.dumps({"format": "weakmask/report", "version": 1}), "damaged"),
        (
            json.dumps({"format": "weakmask/report", "version": 1, "ladder": [], "odd": 1}),
            "damaged",
        ),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        parse(text, "r.json")
    assert str(caught.value).startswith("r.json: ")
    assert "dvc repro -f report" in str(caught.value)


def test_a_report_of_before_says_so(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("")
    with pytest.raises(UserError, match="an older one"):
        load(tmp_path / "report.json")


def test_every_step_and_kind_that_is_scored_has_a_title() -> None:
    assert list(TITLES) == list(STEPS)
    assert list(summaries.KINDS) == list(KINDS)
    assert Summary([]).scored_step("cams") is None
