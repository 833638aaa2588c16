"""What a report says in numbers, out of tables and back from its file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.metrics import failures
from pipeline.metrics.steps import STEPS
from pipeline.views.report_data import (
    KINDS,
    TITLES,
    Change,
    ReportData,
    changed_values,
    collect,
    failure_changes,
    load,
    most_changed,
    parse,
    read_rows,
    step_changes,
)
from tests.views.test_report import EVIL, example_data, other_data


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
    made = collect(
        {"predictions": tables("0"), "labels": tables(), "cams": tables()},
        {"base": {"seed": 3}},
        {"python": "3"},
    )
    assert [one.step for one in made.steps] == ["cams", "labels"], (
        "in order, and what has no masks is left out"
    )
    labels = made.step("labels")
    assert labels is not None
    assert (labels.split, labels.images, labels.scores) == ("train", 2, {"miou": 0.5, "AP": None})
    assert made.classes["labels"] == {"cat": {"iou": 0.4, "AP50": None}}
    assert made.failures["labels"] == {"missed": {"count": 1, "images": 1, "out_of": 3}}
    assert made.images["labels"] == {"a": 0.25}
    assert made.curves["cams"] == [(0.1, 0.5)]


def test_file_holds_it_all(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(example_data().json())
    assert load(path).json() == example_data().json()
    assert load(path).steps == example_data().steps


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "damaged"),
        ("[1]", "damaged"),
        ("{}", "not the numbers of a report"),
        (
            json.dumps({"format": "weakmask/report", "version": 9}),
            "version 9, this program reads 2",
        ),
        (json.dumps({"format": "weakmask/report", "version": 2}), "damaged"),
        (
            json.dumps({"format": "weakmask/report", "version": 2, "steps": [], "odd": 1}),
            "damaged",
        ),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        parse(text, "r.json")
    assert str(caught.value).startswith("r.json: ")
    assert "dvc repro -f report" in str(caught.value)


def test_every_step_and_kind_that_is_scored_has_a_title() -> None:
    assert list(TITLES) == list(STEPS)
    assert list(KINDS) == list(failures.KINDS)
    assert ReportData([]).step("cams") is None


TABLE = "id,miou\nbeach,0.5\nfarm,0.25\n"


def test_table_is_read_and_an_empty_one_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    path.write_text(TABLE)
    assert read_rows(path) == [{"id": "beach", "miou": "0.5"}, {"id": "farm", "miou": "0.25"}]
    path.write_text("")
    assert read_rows(path) == []


@pytest.mark.parametrize(
    "content",
    [TABLE[:-1].encode(), b"id,miou\nbeach\n", b"id,miou\nbeach,0.5,1\n", b"id\xff\n", None],
)
def test_damaged_or_missing_table_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "images.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"images\.csv: .*`dvc repro` makes it again"):
        read_rows(path)


def test_numbers_stand_side_by_side() -> None:
    changes = {change.name: change for change in step_changes(example_data(), other_data())}
    assert changes["labels"] == Change("labels", 0.7, 0.76)
    assert changes["predictions"] == Change("predictions", 0.65, None)
    assert changes["predictions"].difference is None
    assert changes["cams"].first == 0.5
    assert changes["cams, best threshold"].first == 0.612
    assert changes["seeds, coverage"].difference == 0
    assert failure_changes(example_data(), other_data()) == {
        "labels": [Change("missed objects", 2, 1)]
    }


def test_parameters_that_differ_are_named_and_no_others() -> None:
    first, second = example_data().parameters, other_data().parameters
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
