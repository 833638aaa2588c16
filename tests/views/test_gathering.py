"""Which images a report shows, and where it marks what went wrong."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.views.report import boxed
from pipeline.views.report_data import ranked, read_rows, spoiled, spread

SCORES = {name: number / 100 for number, name in enumerate("abcdefghijklmnop")}


def test_worst_median_and_best_of_many() -> None:
    assert ranked(SCORES, 4) == {"worst": ["a", "b", "c", "d"], "median": ["h"], "best": ["p"]}
    assert ranked(SCORES, 5) == {"worst": list("abcde"), "median": ["h", "i"], "best": ["p", "o"]}
    assert ranked({"b": 0.5, "a": 0.5, "c": 0.1}, 1)["worst"] == ["c"]
    assert ranked(SCORES, 0) == {"worst": [], "median": [], "best": []}


@pytest.mark.parametrize("count", range(7))
@pytest.mark.parametrize("worst", [1, 4, 8])
def test_no_image_comes_twice(count: int, worst: int) -> None:
    found = ranked(dict(list(SCORES.items())[:count]), worst)
    names = [name for group in found.values() for name in group]
    assert len(names) == len(set(names))
    assert len(found["worst"]) == min(count, worst)


def test_the_first_step_is_named_at_which_a_image_is_among_the_worst_tenth() -> None:
    """By rank, as steps score differently: the walk spoils `a` though its seeds are further from
    the median than others'.
    """
    others = {f"o{number:02}": 0.5 + number / 100 for number in range(18)}
    images = {
        "cams": {**others, "a": 0.6, "b": 0.2},
        "seeds": {**{name: score + 0.3 for name, score in others.items()}, "a": 0.83, "b": 0.99},
        "walk": {**others, "a": 0.45, "b": 0.4},
    }
    assert spoiled("a", images) == "walk"
    assert spoiled("b", images) == "cams"
    assert spoiled("o17", images) is None
    assert spoiled("z", images) is None


def test_images_are_spread_evenly() -> None:
    assert spread(list("abcdefgh"), 2) == ["c", "g"]
    assert spread(["a"], 3) == ["a"]
    assert spread([], 3) == []


def test_a_frame_lies_around_its_box() -> None:
    panel = np.full((50, 100, 3), 90, np.uint8)
    drawn = boxed(panel, (40, 80, 60, 120), (100, 200))
    changed = (drawn != panel).any(2)
    assert not changed[22:28, 42:58].any(), "the inside stays"
    assert changed[20, 38]
    assert not changed[:15].any()
    assert (panel == 90).all()
    boxed(panel, (0, 0, 100, 200), (100, 200))


TABLE = "id,miou\nbeach,0.5\nfarm,0.25\n"


def test_a_table_is_read_and_an_empty_one_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    path.write_text(TABLE)
    assert read_rows(path) == [{"id": "beach", "miou": "0.5"}, {"id": "farm", "miou": "0.25"}]
    path.write_text("")
    assert read_rows(path) == []


@pytest.mark.parametrize(
    "length", [n for n in range(1, len(TABLE)) if not TABLE[:n].endswith("\n")]
)
def test_a_table_that_is_cut_off_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "images.csv"
    path.write_text(TABLE[:length])
    with pytest.raises(UserError, match=r"images\.csv: damaged, .* `dvc repro` makes it again"):
        read_rows(path)


@pytest.mark.parametrize(
    "content", [b"id,miou\nbeach\n", b"id,miou\nbeach,0.5,1\n", b"id\xff\n", None]
)
def test_a_damaged_or_missing_table_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "images.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"images\.csv: .*`dvc repro` makes it again"):
        read_rows(path)
