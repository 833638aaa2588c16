"""Which images a report shows, and where it marks what went wrong."""

import numpy as np
import pytest

from pipeline.views.gallery import boxed, evenly_spaced, first_bad_step, ranked

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


def test_first_bad_step_goes_by_rank() -> None:
    """The walk spoils `a`, though its seeds are further from the median than others'."""
    others = {f"o{number:02}": 0.5 + number / 100 for number in range(18)}
    images = {
        "cams": {**others, "a": 0.6, "b": 0.2},
        "seeds": {**{name: score + 0.3 for name, score in others.items()}, "a": 0.83, "b": 0.99},
        "walk": {**others, "a": 0.45, "b": 0.4},
    }
    assert first_bad_step("a", images) == "walk"
    assert first_bad_step("b", images) == "cams"
    assert first_bad_step("o17", images) is None
    assert first_bad_step("z", images) is None


def test_images_are_evenly_spaced() -> None:
    assert evenly_spaced(list("abcdefgh"), 2) == ["c", "g"]
    assert evenly_spaced(["a"], 3) == ["a"]
    assert evenly_spaced([], 3) == []


def test_frame_lies_around_its_box() -> None:
    panel = np.full((50, 100, 3), 90, np.uint8)
    drawn = boxed(panel, (40, 80, 60, 120), (100, 200))
    changed = (drawn != panel).any(2)
    assert not changed[22:28, 42:58].any(), "the inside stays"
    assert changed[20, 38]
    assert not changed[:15].any()
    assert (panel == 90).all()
    boxed(panel, (0, 0, 100, 200), (100, 200))
