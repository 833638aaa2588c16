"""Two reports side by side: every number where it belongs, and what is in one of them alone."""

import re
from dataclasses import replace

from pipeline.views.report import render_diff
from pipeline.views.report_data import (
    Change,
    ReportData,
    StepScores,
    changed_values,
    failure_changes,
    most_changed,
    step_changes,
)
from tests.views.test_report import EVIL, example_data, parsed, text_of


def other() -> ReportData:
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


def test_numbers_stand_side_by_side() -> None:
    changes = {change.name: change for change in step_changes(example_data(), other())}
    assert changes["Pseudo-labels"] == Change("Pseudo-labels", 0.7, 0.76)
    assert changes["Final model"] == Change("Final model", 0.65, None)
    assert changes["Final model"].difference is None
    assert changes["Activation maps, at the threshold in use"].first == 0.5
    assert changes["Seeds, coverage"].difference == 0
    assert failure_changes(example_data(), other()) == {"labels": [Change("missed objects", 2, 1)]}


def test_parameters_that_differ_are_named_and_no_others() -> None:
    first, second = example_data().parameters, other().parameters
    assert changed_values(first, second) == [
        ("classifier.method", EVIL, "cam"),
        ("seed", 3, "missing"),
        ("base", "missing", 1),
    ]
    assert changed_values(first, first) == []


def test_images_of_both_that_moved_most_come_first() -> None:
    first = replace(example_data(), images={"labels": dict.fromkeys("abcd", 0.5)})
    second = replace(
        example_data(), images={"labels": {"a": 0.6, "b": 0.2, "c": 0.9, "e": 1.0, "d": 0.5}}
    )
    sides = most_changed(first, second)["labels"]
    assert [change.name for change in sides["gained"]] == ["c", "a"]
    assert [change.name for change in sides["lost"]] == ["b"]
    assert most_changed(first, first) == {}


def test_page_is_one_file_that_escapes_every_name() -> None:
    page = render_diff(example_data(), other(), ("HEAD", f"x {EVIL}"))
    tags = parsed(page)
    assert EVIL not in page
    assert not re.search(r"https?://|url\(|@import|<script", page)
    assert not [key for _, attrs in tags.seen for key in attrs if key in ("src", "href")]
    text = text_of(page)
    for words in ("Pseudo-labels 70.0 76.0 +6.0", "missed objects 2 1 −1", "a 50.0 70.0 +20.0"):
        assert words in text
    assert page == render_diff(example_data(), other(), ("HEAD", f"x {EVIL}"))


def test_reports_without_scores_can_be_compared() -> None:
    page = render_diff(ReportData([]), ReportData([]), ("A", "B"))
    parsed(page)
    assert "Neither report has scores" in page
    assert "No parameter differs" in page
