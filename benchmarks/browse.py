"""How long `weakmask browse` takes to answer with many images in the store: server and drawing in
headless Chromium.

    python -m benchmarks.browse                           10,000 images made of the records in data/ (`make demo`)
    python -m benchmarks.browse --run ~/demo/data --images 1000

The store repeats the records of a finished run under many ids, and its score tables. Times are from
the key or click until every image that can be seen is decoded and drawn.
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.__main__ import header
from pipeline.browser.run import FORMATS, SCORED
from pipeline.core.artifacts import Reader, Record, Writer
from pipeline.data.index import ImageEntry, Index
from pipeline.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
KINDS = 40
"""Different images that are repeated."""
READY = """async (before) => {
  const frame = () => new Promise(requestAnimationFrame);
  for (;;) {
    await frame();
    const images = [...document.querySelectorAll('.stack img')].filter((i) => i.offsetParent && i.getAttribute('src'));
    if (!images.length || images[0].src === before || !images.every((i) => i.complete && i.naturalWidth)) continue;
    await Promise.all(images.map((i) => i.decode()));
    await frame();
    return performance.now();
  }
}"""
PRESS = f"""async ([key, index]) => {{
  const before = document.querySelectorAll('.stack img')[index].src, start = performance.now();
  document.body.dispatchEvent(new KeyboardEvent('keydown', {{ key, bubbles: true }}));
  return await ({READY})(index ? '' : before) - start;
}}"""
GRID = """async () => {
  const seen = (i) => i.getBoundingClientRect().top < innerHeight;
  for (;;) {
    await new Promise(requestAnimationFrame);
    const images = [...document.querySelectorAll('.card img')].filter(seen);
    if (images.length && images.every((i) => i.complete && i.naturalWidth)) return performance.now();
  }
}"""
SORTED = """async () => {
  const start = performance.now();
  while (!document.querySelector('.card .scores .on')) await new Promise((later) => setTimeout(later, 100));
  return performance.now() - start;
}"""
MOVE = f"""async () => {{
  const said = document.querySelector('#cams-score'), before = said.textContent, start = performance.now();
  const thumb = document.querySelector('[data-knob=threshold] [tabindex]');
  thumb.focus();
  thumb.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'ArrowRight', keyCode: 39, bubbles: true }}));
  while (said.textContent === before) await new Promise(requestAnimationFrame);
  return await ({READY})('') - start;
}}"""


def build(source: Path, folder: Path, count: int) -> None:
    """Artifacts of `count` images in folder/data, from the records in `source`, and the parameters
    beside it.
    """
    index = Index.load(source / "dataset")
    data = folder / "data"
    names = [f"image {number:06d}" for number in range(count)]
    kinds = list(islice(index.values(), KINDS))
    images = [_renamed(name, kind) for name, kind in zip(names, cycle(kinds), strict=False)]
    roots = index.images_root.resolve(), index.masks_root.resolve()
    Index(index.classes, images, *roots, index.mask_values).save(data / "dataset")
    for format_ in FORMATS:
        _repeat(Reader(source / f"{format_}.h5", format_), data / f"{format_}.h5", images, kinds)
    for step in SCORED:
        _repeat_table(source / "scores" / step / "images.csv", data / "scores" / step, names)
    shutil.copy(ROOT / "params.yaml", folder)


def _renamed(name: str, kind: ImageEntry) -> ImageEntry:
    return ImageEntry(
        name,
        kind.path,
        kind.height,
        kind.width,
        "train",
        kind.tags,
        kind.semantic,
        kind.instances,
        kind.digest,
    )


def _repeat(reader: Reader, path: Path, images: list[ImageEntry], kinds: list[ImageEntry]) -> None:
    """An artifact of all images: each has the record of its kind, or of one of the same size where
    a split lacks it.
    """
    there: dict[tuple[int, ...], Record] = {}
    for name in reader:
        record = reader[name]
        there.setdefault(_shape(record), record)
    with Writer(path, reader.format, reader.classes) as writer:
        for image, kind in zip(images, cycle(kinds), strict=False):
            if kind.id in reader:
                writer.write(image.id, reader[kind.id])
            elif (kind.height, kind.width) in there:
                writer.write(image.id, there[kind.height, kind.width])


def _shape(record: Record) -> tuple[int, ...]:
    return tuple(record["semantic"].shape) if "semantic" in record else ()


def _repeat_table(source: Path, folder: Path, names: list[str]) -> None:
    with source.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    folder.mkdir(parents=True)
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"id": name} for name, row in zip(names, cycle(rows), strict=False))


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, float]]:
    """The address of a server over folder/data, and the seconds until it listened."""
    command = [
        sys.executable,
        "-c",
        "from stages.cli.main import main; main()",
        "browse",
        "--no-open",
        "--port",
        "0",
    ]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    start = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split(" ")[0]
            if not address.startswith("http"):
                raise UserError("weakmask browse did not start; its message is above")
            yield address, time.monotonic() - start
        finally:
            server.terminate()


def rows(address: str, chromium: str, times: int) -> Iterator[tuple[str, list[float]]]:
    """What is measured, and its times in milliseconds."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def fresh(path: str, script: str, argument: str | None = None) -> float:
            """Milliseconds from the navigation to what the script waits for, in a browser that has
            seen nothing before.
            """
            with browser.new_context(viewport={"width": 1366, "height": 768}) as context:
                page = context.new_page()
                page.goto(address + path, wait_until="commit")
                return float(page.evaluate(script, argument))

        # the first request of a server's life imports and opens what the others find
        yield "grid, server just started", [fresh("/", GRID)]
        yield "grid, fresh browser", [fresh(f"/?page={n}", GRID) for n in range(2, 2 + times)]
        yield (
            "grid, worst first",
            [fresh(f"/?sort=labels&page={n}", GRID) for n in range(1, 1 + times)],
        )
        yield (
            "first image, fresh browser",
            [fresh(f"/image/image%20{n * 97:06d}", READY, "") for n in range(1, 1 + times)],
        )
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        yield "first image, from the grid", [_click(page, address, n) for n in range(times)]
        yield from _within(page, address, times)
        yield from _disagreements(page, fresh, address, times)
        browser.close()


def _click(page: Any, address: str, number: int) -> float:
    page.goto(f"{address}/?page={number + 50}", wait_until="load")
    page.wait_for_selector(".card")
    page.locator(".card").nth(number).click(no_wait_after=True)
    page.wait_for_selector("#name")
    return float(page.evaluate(READY, ""))


def _within(page: Any, address: str, times: int) -> Iterator[tuple[str, list[float]]]:
    """What happens on an image's page."""

    def steps(layers: str, pause: int) -> list[float]:
        """Next images, with a pause before each in which the neighbors are drawn ahead."""
        page.goto(f"{address}/image/image%20004000?layers={layers}")
        page.wait_for_timeout(2000)
        found = []
        for _ in range(times):
            page.wait_for_timeout(pause)
            found.append(float(page.evaluate(PRESS, ["ArrowRight", 0])))
        return found

    yield "next image, labels", steps("labels:1", 1000)
    yield "next image, three layers", steps("cams:1,labels:0.5,truth:0.5", 1000)
    yield "next image, labels, without a pause", steps("labels:1", 0)
    page.goto(f"{address}/image/image%20005000?layers=cams:1")
    page.wait_for_timeout(2000)
    yield "threshold moved, layer and mIoU", [float(page.evaluate(MOVE)) for _ in range(times)]


def _disagreements(
    page: Any, fresh: Callable[..., float], address: str, times: int
) -> Iterator[tuple[str, list[float]]]:
    """The grid by what two steps differ on: until all images are compared, and another grid
    meanwhile.
    """
    page.goto(f"{address}/?sort=disagreement&differ=seeds-labels")
    yield (
        "grid while seeds and labels are compared",
        [
            fresh(f"/?sort=disagreement&differ=seeds-labels&page={n}", GRID)
            for n in range(2, 2 + times)
        ],
    )
    page.set_default_timeout(0)
    yield "seeds and labels of all images compared, after that", [float(page.evaluate(SORTED))]


@click.command()
@click.option(
    "--run",
    "source",
    default="data",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of a run.",
)
@click.option(
    "--images",
    default=10_000,
    show_default=True,
    type=click.IntRange(7000),
    help="Images in the store.",
)
@click.option(
    "--times", default=15, show_default=True, type=click.IntRange(1, 40), help="Measurements a row."
)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    help="Folder to keep the store in, for another time.",
)
@click.option("--chromium", default="/usr/bin/chromium", show_default=True)
def main(source: Path, images: int, times: int, store: Path | None, chromium: str) -> None:
    """Print the medians as a markdown table."""
    for line in header("benchmarks.browse"):
        click.echo(line)
    with tempfile.TemporaryDirectory(prefix="weakmask-browse-") as name:
        folder = store or Path(name)
        if not (folder / "params.yaml").is_file():
            build(source, folder, images)
        with served(folder) as (address, start):
            click.echo(f"{images} images; the server listens after {start:.1f} s\n")
            click.echo("| what | median | slowest | times |\n|---|---|---|---|")
            for what, found in rows(address, chromium, times):
                click.echo(
                    f"| {what} | {median(found):.0f} ms | {max(found):.0f} ms | {len(found)} |"
                )


if __name__ == "__main__":
    main()
