"""The pages in headless Chromium: what they show, and what keys and sliders do."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest

from tests.support.runs import NAMES, run_of, write_artifact, write_run, write_table

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt package chromium)"),
    # of NiceGUI and the server's own threads, not of the pages
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
SOURCES = (
    "els => els.filter(e => e.offsetParent && e.getAttribute('src')).map(e => e.dataset.layer)"
)

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
    import uvicorn

    from pipeline.browser import app

    opened = app.listen(0)
    application = app.application([run_of(folder), run_of(folder / "other", "other")])
    serving = uvicorn.Server(
        uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=serving.run, args=([opened],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    serving.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Any]:
    """One tab."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1366, "height": 768}, base_url=address)
        page.set_default_timeout(20_000)
        page.foreign = []
        page.on("request", lambda r: page.foreign.append(r.url) if address not in r.url else None)
        yield page
        browser.close()


def shown_layers(page: Any) -> list[str]:
    """The layers of the first pane that can be seen."""
    return page.locator(".pane").first.locator("img.layer").evaluate_all(SOURCES)


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
    assert ids.all_inner_texts() == sorted(NAMES)
    page.get_by_label("search id").fill("日")
    wait(page, lambda: ids.all_inner_texts() == ["d-日本"])
    assert "q=" in page.url
    page.reload()
    wait(page, lambda: ids.all_inner_texts() == ["d-日本"])
    page.goto("/?sort=labels")
    assert ids.all_inner_texts() == sorted(NAMES, reverse=True)
    for score in ("maps 40.0", "seeds 40.0", "walk 40.0", "labels 40.0", "final 40.0"):
        assert score in page.locator(".card").first.inner_text()
    wait(
        page,
        lambda: page.locator(".card img").first.evaluate("i => i.complete && i.naturalWidth") > 0,
    )
    page.locator(".card").nth(4).click()
    page.wait_for_selector("#name")
    assert page.locator("#name").inner_text() == "b/two"
    assert unquote(urlsplit(page.url).path) == "/image/b/two"
    assert shown_layers(page) == ["labels"]


def test_disagreements_sort_the_grid_when_they_are_computed(page: Any) -> None:
    page.goto("/?sort=disagreement&differ=labels-truth")
    wait(page, lambda: page.locator(".card .scores .on").count() == len(NAMES))
    found = [float(text.split()[1]) for text in page.locator(".card .scores .on").all_inner_texts()]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0


def test_keys_walk_through_images_and_layers(page: Any) -> None:
    page.goto(f"/image/{quote('b/two', safe='')}?layers=labels:1")
    name = page.locator("#name")
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
    page.locator("button", has_text="keyboard").first.click()
    page.get_by_text("previous, next image").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("previous, next image").wait_for(state="hidden")
    page.keyboard.press("g")
    page.wait_for_selector(".card")


def test_threshold_is_live(page: Any) -> None:
    page.goto("/image/f?layers=cams:1&panes=workspace")
    said = page.locator("#cams-score")
    wait(page, lambda: "at 0.30" in said.inner_text())
    layer = page.locator("img[data-layer=cams]").first
    before = layer.get_attribute("src")
    page.locator("[data-knob=threshold] [tabindex]").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    wait(page, lambda: "threshold=0.33" in page.url and "at 0.33" in said.inner_text())
    wait(page, lambda: layer.get_attribute("src") != before)
    assert page.locator("#name").inner_text() == "f"


def test_walk_is_live(page: Any) -> None:
    page.goto("/image/f?layers=relabeled:1&background=0.9&panes=workspace")
    said = page.locator("#walk-score")
    wait(page, lambda: "stored labels" in said.inner_text())
    before = said.inner_text()
    page.get_by_text("the run's own").click()
    wait(page, lambda: said.inner_text() != before and "background" not in page.url)


def test_two_runs_stand_side_by_side_with_one_zoom(page: Any) -> None:
    page.goto("/image/f?layers=labels:0.6")
    panes = page.locator(".pane")
    wait(page, lambda: panes.count() == 2)
    assert [text.split("\n")[0] for text in panes.all_inner_texts()] == ["workspace", "other"]
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


def test_id_that_is_not_there_proposes_others(page: Any) -> None:
    assert page.goto("/image/b%2Ftwi").status == 404
    page.get_by_text("There is no image 'b/twi'; similar ids: b/two").wait_for()


def test_damage_is_a_notice_and_the_rest_works_until_it_is_fixed(page: Any, folder: Path) -> None:
    (folder / "seeds.h5").unlink()
    (folder / "seeds.h5").write_bytes(b"no HDF5")
    page.goto("/image/f?layers=seeds:1,cams:1&panes=workspace")
    page.locator(".notice", has_text="seeds.h5: not a readable HDF5 file").wait_for()
    assert shown_layers(page) == ["cams"]
    (folder / "seeds.h5").unlink()
    write_artifact(folder, "seeds")
    page.keyboard.press(" ")
    wait(page, lambda: shown_layers(page) == ["cams", "seeds"])
    assert page.locator(".notice").count() == 0


def test_nothing_is_fetched_from_elsewhere(page: Any) -> None:
    page.goto("/")
    assert [url for url in page.foreign if not url.startswith(("data:", "blob:"))] == []
