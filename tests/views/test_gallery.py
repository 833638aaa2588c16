"""Which images a report shows, and where it marks what went wrong."""

import numpy as np
import pytest

from pipeline.core.artifacts import LAYOUTS, Reader
from pipeline.data.index import Index
from pipeline.views.gallery import ImageGallery, boxed, evenly_spaced, first_bad_step, ranked
from pipeline.views.report_data import TITLES, ReportData
from pipeline.views.sheets import COLUMNS
from tests.support.runs import CLASSES, NAMES, write_run

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


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> ImageGallery:
    folder = tmp_path_factory.mktemp("gallery")
    write_run(folder)
    readers = {format_: Reader(folder / f"{format_}.h5", format_) for format_ in LAYOUTS}
    return ImageGallery(Index.load(folder / "dataset"), readers, "class", 60)


def test_every_panel_of_an_image_is_drawn(gallery: ImageGallery) -> None:
    example = gallery.example("f")
    assert list(example.panels) == ["image", *COLUMNS]
    found = {(panel.shape, panel.dtype.name) for panel in example.panels.values()}
    assert found == {((44, 60, 3), "uint8")}
    assert list(gallery.contact_sheets(NAMES[:5]))[1].startswith(b"\x89PNG")


def test_images_by_score_have_scores_of_all_steps_and_the_first_bad_one(
    gallery: ImageGallery,
) -> None:
    scores = {name: 0.1 * n for n, name in enumerate(NAMES)}
    data = ReportData(
        [], images={"cams": {n: 1 - one for n, one in scores.items()}, "labels": scores}
    )
    found = gallery.ranked(data, "labels", 2)
    assert [one.id for one in found["worst"]] == list(NAMES[:2])
    first, second = found["worst"]
    assert (first.scores, first.note) == (
        {"cams": 1, "labels": 0},
        "among the worst tenth since labels",
    )
    assert second.note == ""
    assert "displacement" not in first.panels
    assert list(gallery.step_panels(data)) == list(TITLES)


def test_largest_failure_of_a_kind_is_marked(gallery: ImageGallery) -> None:
    kinds = {
        kind: {"count": n, "images": n, "out_of": 9} for kind, n in (("missed", 2), ("split", 0))
    }
    row = {"kind": "missed", "class": "cat", "top": "5", "left": "5", "bottom": "20", "right": "20"}
    places = [{**row, "id": "f", "pixels": "9"}, {**row, "id": "a one", "pixels": "80"}]
    missed, split = gallery.failures(ReportData([], failures={"labels": kinds}), "labels", places)
    assert (missed.count, split.example) == (2, None)
    assert missed.example is not None
    assert (missed.example.id, missed.example.note) == ("a one", "cat")
    assert list(missed.example.panels) == ["image", "labels", "ground truth"]


def test_what_label_maps_contain_is_compared_with_the_tags(gallery: ImageGallery) -> None:
    found = gallery.found("labels")
    assert list(found.classes) == list(CLASSES)
    tagged, images, share = found.classes["cat"]
    assert (tagged, images) == (4, 4)
    assert 0.1 < share < 0.2
    assert (found.empty, found.lacking) == ([], [])
