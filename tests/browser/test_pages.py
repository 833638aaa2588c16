"""The pages in headless Chromium: what they show, and what keys and sliders do."""

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from dvc_render.html import render_html
from dvc_render.vega import VegaRenderer

from pipeline.browser.app import Server
from pipeline.browser.clicks import Clicks
from tests.support.runs import NAMES, run_of, write_artifact, write_run, write_table

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt package chromium)"),
]
SOURCES = """pane => [...pane.querySelectorAll('img.layer')]
    .filter(e => e.offsetParent && e.getAttribute('src')).map(e => e.dataset.layer)"""

DVC = Path(__file__).parents[2] / ".dvc"
COUNTS = ((7, "missed"), (5, "split"))
ZOOM = "els => els.map(e => new DOMMatrix(getComputedStyle(e).transform).a)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run whose labels miss the truth, and another one in `other` in which they do not."""
    folder = tmp_path_factory.mktemp("browsed")
    write_run(folder, shift=2)
    write_run(folder / "other")
    write_table(folder / "other", "labels", best=1.0)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The address of a server in this process, over both runs."""
    runs = [run_of(folder), run_of(folder / "other", "other")]
    with Server(runs, 0, Clicks(folder / "hints"), ["f"]) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.address
        server.shutdown()


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Any]:
    """One tab."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1366, "height": 768}, base_url=address)
        page.set_default_timeout(20_000)
        page.foreign = []
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(error))
        page.on("request", lambda r: page.foreign.append(r.url) if address not in r.url else None)
        yield page
        browser.close()


def shown_layers(page: Any) -> list[str]:
    """The layers seen in every pane; none while the panes, drawn one by one, still differ."""
    first, *others = [pane.evaluate(SOURCES) for pane in page.locator(".pane").all()] or [[]]
    return first if all(other == first for other in others) else []


def wait(page: Any, condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"timed out at {page.url}: {page.locator('body').inner_text()}")


def test_grid_sorts_filters_and_leads_to_images(page: Any) -> None:
    page.goto("/")
    ids = page.locator(".card .id")
    wait(page, lambda: ids.all_inner_texts() == sorted(NAMES))
    page.get_by_label("search id").fill("日")
    wait(page, lambda: ids.all_inner_texts() == ["d-日本"])
    assert "q=" in page.url
    page.reload()
    wait(page, lambda: ids.all_inner_texts() == ["d-日本"])
    page.get_by_label("search id").fill("nothing")
    page.get_by_text("clear the filter").click()
    wait(page, lambda: ids.all_inner_texts() == sorted(NAMES))
    page.locator(".chip", has_text="val").click()
    wait(page, lambda: ids.all_inner_texts() == ["c été <b>", "f"])
    page.locator(".chip", has_text="labels: missed").click()
    wait(page, lambda: ids.all_inner_texts() == ["f"] and "failure=labels:missed" in page.url)
    assert "only val, labels:missed" in page.locator("summary").first.inner_text()
    page.goto("/?sort=labels")
    wait(page, lambda: ids.all_inner_texts() == sorted(NAMES, reverse=True))
    first = page.locator(".card").first
    rows = [row.split() for row in first.locator("tr").all_inner_texts()]
    assert rows[0] == ["cams", "seeds", "walk", "labels", "predictions"]
    assert rows[1:] == [["40.0"] * 5, ["40.0", "40.0", "40.0", "50.0", "40.0"]]
    loaded = "images => images.every(i => i.complete && i.naturalWidth > 100)"
    wait(page, lambda: first.locator("img").evaluate_all(loaded))
    page.get_by_label("opacity").fill("0.4")
    assert first.locator(".over").evaluate("i => getComputedStyle(i).opacity") == "0.4"
    page.locator(".card").nth(4).click()
    wait(page, lambda: page.locator("#name").inner_text() == "b/two")
    assert unquote(urlsplit(page.url).path) == "/image/b/two"
    wait(page, lambda: shown_layers(page) == ["labels"])
    page.go_back()
    wait(page, lambda: ids.count() == len(NAMES))


def test_keys_walk_through_images_and_layers(page: Any) -> None:
    page.goto(f"/image/{quote('b/two', safe='')}?layers=labels:1")
    name = page.locator("#name")
    wait(page, lambda: shown_layers(page) == ["labels"])
    page.keyboard.press("ArrowRight")
    wait(page, lambda: name.inner_text() == "c été <b>")
    page.keyboard.press("ArrowLeft")
    wait(page, lambda: name.inner_text() == "b/two")
    page.keyboard.press("3")
    wait(page, lambda: shown_layers(page) == ["seeds", "labels"])
    page.keyboard.press("ArrowDown")
    wait(page, lambda: shown_layers(page) == ["instances"])
    page.keyboard.press(" ")
    wait(page, lambda: "bare=1" in page.url)
    assert page.locator("img[data-layer=instances]").first.evaluate(
        "i => getComputedStyle(i).visibility"
    ) == ("hidden")
    page.reload()
    wait(page, lambda: name.inner_text() == "b/two" and shown_layers(page) == ["instances"])
    page.get_by_role("button", name="?", exact=True).click()
    page.get_by_text("previous, next image").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("previous, next image").wait_for(state="hidden")
    page.get_by_title("what is seeds?").click()
    page.locator("#tip", has_text="dense CRF").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.wait_for_selector(".card")


def test_sliders_are_live_and_start_at_the_runs_own_values(page: Any) -> None:
    page.goto("/image/f?layers=cams:1,relabeled:1&panes=workspace")
    said = page.locator(".lines")
    wait(page, lambda: "at 0.30" in said.inner_text() and "stored labels" in said.inner_text())
    layers = page.locator("img[data-layer=cams], img[data-layer=relabeled]")
    sources = "images => images.map(i => i.getAttribute('src'))"
    before, text = layers.evaluate_all(sources), said.inner_text()
    for knob, value in (("threshold", "0.33"), ("background", "0.9")):
        page.locator(f"[data-knob={knob}] input").fill(value)
        page.wait_for_url(re.compile(f"{knob}={value}"))
    wait(page, lambda: "at 0.33" in said.inner_text())
    after = layers.evaluate_all(sources)
    assert all(one != other for one, other in zip(before, after, strict=True))
    page.locator("[data-knob=threshold] .own").click()
    page.get_by_text("reset to the runs' own").click()
    wait(page, lambda: said.inner_text() == text and "background" not in page.url)
    assert page.locator("#name").inner_text() == "f"


def test_two_runs_stand_side_by_side_with_one_zoom(page: Any) -> None:
    page.goto("/image/f?layers=labels:0.6")
    panes = page.locator(".pane")
    wait(page, lambda: panes.count() == 2)
    assert panes.locator(".title b").all_inner_texts() == ["workspace", "other"]
    wait(page, lambda: shown_layers(page) == ["labels"])
    sources = [panes.nth(n).locator("img[data-layer=labels]").get_attribute("src") for n in (0, 1)]
    assert "run=workspace" in sources[0]
    assert "run=other" in sources[1]
    box = panes.nth(0).locator(".frame").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -400)
    wait(page, lambda: "#" in page.url)
    zooms = page.locator(".stack").evaluate_all(ZOOM)
    assert zooms[0] == zooms[1] == pytest.approx(2.718, abs=0.01)
    page.reload()
    wait(page, lambda: panes.count() == 2)
    assert page.locator(".stack").evaluate_all(ZOOM) == pytest.approx(zooms, abs=0.01)
    wait(page, lambda: "segment" in page.locator(".values").inner_text() or _nudge(page, box))


def _nudge(page: Any, box: dict[str, float]) -> bool:
    page.mouse.move(box["x"] + 50 + time.time() % 9, box["y"] + 50)
    return False


def test_two_runs_are_swiped_and_flickered(page: Any) -> None:
    page.goto("/image/f?layers=labels:1")
    frames = page.locator(".frame")
    wait(page, lambda: shown_layers(page) == ["labels"])
    page.keyboard.press("c")
    boxes = [frames.nth(n).bounding_box() for n in (0, 1)]
    assert boxes[0] == boxes[1], "one on top of the other"
    page.mouse.move(boxes[0]["x"] + boxes[0]["width"] / 4, boxes[0]["y"] + 9)
    clip = "i => parseFloat(getComputedStyle(i).clipPath.split(' ').at(-1))"
    wait(page, lambda: frames.nth(1).evaluate(clip) == pytest.approx(25, abs=1))
    page.keyboard.press("c")
    for state in ("hidden", "visible", "hidden"):
        frames.nth(1).wait_for(state=state)
    assert "mode=flicker" in page.url


def test_marks_are_clicked_taken_back_and_saved(page: Any, folder: Path) -> None:
    page.goto("/image/b%2Ftwo?panes=workspace")
    wait(page, lambda: shown_layers(page) == ["labels"])
    marks, box = page.locator(".marks i"), page.locator(".frame").bounding_box()

    def at(x: float, y: float) -> tuple[float, float]:
        return box["x"] + x * box["width"] / 41, box["y"] + y * box["height"] / 30

    page.mouse.click(*at(5, 5))
    assert marks.count() == 0, "it is not in this mode"
    page.keyboard.press("m")
    page.mouse.click(*at(10.25, 20.5))
    page.keyboard.press("n")
    page.mouse.move(*at(3, 4))
    page.mouse.down()
    page.mouse.move(*at(20, 10), steps=3)
    page.mouse.move(*at(45, 25), steps=3)
    page.mouse.up()
    page.keyboard.press("n")
    page.mouse.click(*at(1, 1))
    assert marks.count() == 3
    page.keyboard.press("z")
    page.keyboard.press("ArrowRight")
    wait(page, lambda: page.locator("#name").inner_text() == "c été <b>")
    assert marks.count() == 0
    assert not page.locator(".marking-tools").is_visible(), "of split val"
    page.keyboard.press("ArrowLeft")
    wait(page, lambda: marks.count() == 2)
    page.keyboard.press("s")
    page.get_by_text("next: dvc repro").wait_for()
    assert (folder / "hints/clicked.csv").read_text().splitlines()[1].startswith("b/two,")
    (label, *point), (other, *corners) = Clicks(folder / "hints").of("b/two", run_of(folder).index)
    assert (label, other) == (2, 3)
    assert point == pytest.approx([10.25, 20.5], abs=0.2)
    assert corners == pytest.approx([3, 4, 41, 25], abs=0.2)
    page.reload()
    wait(page, lambda: marks.count() == 2)


def test_zoomed_clicks_land_where_they_are_seen(page: Any, folder: Path) -> None:
    page.goto("/image/a%20one?panes=workspace#2,-50,-50")
    wait(page, lambda: shown_layers(page) == ["labels"])
    page.keyboard.press("m")
    box = page.locator(".frame").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.keyboard.press("s")
    page.get_by_text("next: dvc repro").wait_for()
    ((_, x, y),) = Clicks(folder / "hints").of("a one", run_of(folder).index)
    assert (x, y) == pytest.approx((41 / 2, 30 / 2), abs=0.2)


def test_id_that_is_not_there_proposes_others(page: Any) -> None:
    assert page.goto("/image/b%2Ftwi").status == 404
    page.get_by_text("There is no image 'b/twi'; similar ids: b/two").wait_for()


def test_damage_is_a_notice_and_the_rest_works_until_it_is_fixed(page: Any, folder: Path) -> None:
    (folder / "seeds.h5").unlink()
    (folder / "seeds.h5").write_bytes(b"no HDF5")
    page.goto("/image/f?layers=seeds:1,cams:1&panes=workspace")
    page.locator(".notice", has_text="seeds.h5: not a readable HDF5 file").wait_for()
    wait(page, lambda: shown_layers(page) == ["cams"])
    page.locator(".notice button").first.click()
    assert page.locator(".notice").count() == 0
    (folder / "seeds.h5").unlink()
    write_artifact(folder, "seeds")
    page.keyboard.press(" ")
    wait(page, lambda: shown_layers(page) == ["cams", "seeds"])
    assert page.locator(".notice").count() == 0


def test_a_phone_shows_two_columns_with_folded_filters_and_the_image_above_its_layers(
    page: Any,
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/")
    page.locator(".card").first.wait_for()
    columns = "grid => getComputedStyle(grid).gridTemplateColumns.split(' ').length"
    assert page.locator("main.grid").evaluate(columns) == 2
    assert not page.locator(".chips").first.is_visible()
    page.goto("/image/f?panes=workspace")
    wait(page, lambda: shown_layers(page) == ["labels"])
    assert page.locator(".layerrow", has_text="walk").bounding_box()["y"] < 844
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1366, "height": 768})


def test_nothing_fails_or_is_fetched_from_elsewhere(page: Any) -> None:
    page.goto("/")
    assert [url for url in page.foreign if not url.startswith(("data:", "blob:"))] == []
    assert page.errors == []


def test_the_page_of_dvc_plots_draws_without_a_network(page: Any, tmp_path: Path) -> None:
    runs = ("workspace", "other")
    points = [{"step": x, "loss": 9 - x, "rev": rev} for rev in runs for x in range(4)]
    kinds = [{"count": number, "kind": kind, "rev": rev} for rev in runs for number, kind in COUNTS]
    pixels = [
        {"actual": row, "predicted": column, "pixels": 3 if row == column else 1, "rev": rev}
        for rev in runs
        for row in "ab"
        for column in "ab"
    ]
    renderers = [
        VegaRenderer(points, "loss", template="linear", x="step", y="loss"),
        VegaRenderer(kinds, "kinds", template="bar_horizontal", x="count", y="kind"),
        VegaRenderer(
            pixels,
            "confusion",
            template="confusion_pixels",
            template_dir=str(DVC / "plots"),
            x="actual",
            y="predicted",
        ),
    ]
    page = page.context.browser.new_page()
    page.route("http*://**", lambda route: route.abort())
    errors: list[object] = []
    page.on("pageerror", lambda error: errors.append(error))
    drawn = render_html(renderers, tmp_path / "index.html", DVC / "plots/page.html")
    page.goto(Path(drawn).as_uri())
    assert errors == []
    assert page.locator("svg polyline").count() == 2
    texts = [part.split() for part in page.locator("tr").all_inner_texts()]
    assert texts[:3] == [[*runs], ["missed", "7", "7"], ["split", "5", "5"]]
    assert texts[3:] == [["a", "b"], ["a", "75.0", "25.0"], ["b", "25.0", "75.0"]] * 2
    page.close()
