"""`weakmask browse` with many images, in headless Chromium: from the key until all is drawn.

The store repeats the records of the finished run in data/ (`make demo`) under 10,000 ids.
"""

import atexit
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.measure import Benchmark, Value, temporary_folder
from pipeline.browser.run import FORMATS
from pipeline.core.artifacts import Reader, Record, Writer
from pipeline.data.index import Index

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "data"
IMAGES = 10_000
DIFFERENT = 40
"""Different images that are repeated."""
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
READY = """async (before) => {
  const frame = () => new Promise(requestAnimationFrame);
  for (;;) {
    await frame();
    const all = [...document.querySelectorAll('.stack img')];
    const images = all.filter((i) => i.offsetParent && i.getAttribute('src'));
    if (!images.length || images[0].src === before) continue;
    if (!images.every((i) => i.complete && i.naturalWidth)) continue;
    await Promise.all(images.map((i) => i.decode()));
    await frame();
    return performance.now();
  }
}"""
NEXT = f"""async () => {{
  const before = document.querySelector('.stack img').src, start = performance.now();
  document.body.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'ArrowRight', bubbles: true }}));
  return await ({READY})(before) - start;
}}"""


def build(folder: Path) -> None:
    """Write artifacts of IMAGES images to folder/data."""
    index = Index.load(SOURCE / "dataset")
    originals = list(islice(index.values(), DIFFERENT))
    ids = {
        f"image {number:06d}": old
        for number, old in zip(range(IMAGES), cycle(originals), strict=False)
    }
    entries = [replace(old, id=name, split="train") for name, old in ids.items()]
    roots = index.images_root.resolve(), index.masks_root.resolve()
    Index(index.classes, entries, *roots, index.mask_values).save(folder / "data/dataset")
    for stage in FORMATS:
        reader = Reader(SOURCE / f"{stage}.h5", stage)
        records: Mapping[str, Record] = {
            old.id: reader[old.id] for old in originals if old.id in reader
        }
        with Writer(folder / f"data/{stage}.h5", stage, reader.classes) as writer:
            for name, old in ids.items():
                if old.id in records:
                    writer.write(name, records[old.id])
    shutil.copy(ROOT / "params.yaml", folder)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder, and yield the address."""
    code = "from stages.cli.main import main; main()"
    command = [sys.executable, "-c", code, "browse", "--no-open", "--port", "0"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split(" ")[0]
            if not address.startswith("http"):
                raise RuntimeError("weakmask browse did not start; its message is above")
            yield address
        finally:
            server.terminate()


def browse(measured: Callable[[Any, str], Iterator[float]]) -> Callable[[], object]:
    """Return a call that takes the next of what is measured in a browser."""
    from playwright.sync_api import sync_playwright

    folder = temporary_folder()
    build(folder)
    stack = ExitStack()
    address = stack.enter_context(served(folder))
    playwright = stack.enter_context(sync_playwright())
    chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    atexit.register(stack.close)
    milliseconds = measured(chromium, address)
    return lambda: Value(next(milliseconds) / 1e3, "s")


def first_image(chromium: Any, address: str) -> Iterator[float]:
    """Open an image in a browser that has seen nothing before."""
    for number in range(1, 100):
        with chromium.new_context(viewport={"width": 1366, "height": 768}) as context:
            page = context.new_page()
            page.goto(f"{address}/image/image%20{number * 97:06d}", wait_until="commit")
            yield float(page.evaluate(READY, ""))


def next_image(chromium: Any, address: str) -> Iterator[float]:
    """Step to the next image, with a pause before it in which the neighbors are prefetched."""
    page = chromium.new_page(viewport={"width": 1366, "height": 768})
    page.goto(f"{address}/image/image%20004000?layers=labels:1")
    page.wait_for_timeout(2000)
    while True:
        page.wait_for_timeout(1000)
        yield float(page.evaluate(NEXT))


def missing() -> str:
    """Say what a measurement lacks."""
    if not (SOURCE / "predictions.h5").is_file():
        return "a finished run in data/; run `make demo`"
    if find_spec("playwright") is None or not Path(CHROMIUM).is_file():
        return "playwright and Chromium; set CHROMIUM to its path"
    return ""


BENCHMARKS = tuple(
    Benchmark(
        what, f"{IMAGES:,} images", partial(browse, measured), None, "", runs=7, missing=missing
    )
    for what, measured in (
        ("browser, first image", first_image),
        ("browser, next image", next_image),
    )
)
