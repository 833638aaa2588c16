"""Stage report: one offline HTML page, its numbers as JSON, and contact sheets as PNG files.

Reads all artifacts, scores and curves; writes data/report/index.html, data/report/report.json (what
`weakmask report-diff` compares) and data/report/sheets/*.png.
    dvc repro

The page names the versions of the packages that wrote it: they are as much a part of what it was
made from as the code is, so equal versions give equal bytes on every machine. What only a machine
has (build labels such as +cu132, device, time) is left out.
"""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.core.artifacts import Reader
from pipeline.core.resume import write_atomically
from pipeline.data.index import Index
from pipeline.views.report import mistakes, render
from pipeline.views.report_data import (
    FILE,
    PANELS,
    TITLES,
    Example,
    Gallery,
    Summary,
    Table,
    ranked,
    read_rows,
    read_tables,
    spoiled,
    spread,
    summarize,
)
from pipeline.views.sheets import contact_sheet, png
from stages._command import CURVES, DATA, DATASET, Parameters, Runtime, artifact, stage

ROWS_A_SHEET = 4
ON_PAGE = 4
"""Of the images on the sheets of a split, as many are on the page too."""
THUMBNAIL = 200
"""Longer side of the page's panels in pixels."""
JUDGED = {"labels": "train", "predictions": "val"}
"""Steps whose images are shown by score, with the split that they are of."""
SHOWN = {
    "labels": ("image", "CAM", "seeds", "boundary", "pseudo-label", "instances", "truth"),
    "predictions": ("image", "prediction", "predicted instances", "truth", "true instances"),
}
LADDER = {
    "cams": "CAM",
    "seeds": "seeds",
    "walk": "boundary",
    "labels": "pseudo-label",
    "predictions": "prediction",
}
"""Panels beside the rows of the ladder."""
PACKAGES = ("weakmask", "torch", "torchvision", "timm", "numpy")


@stage
def report(parameters: Parameters, runtime: Runtime) -> None:
    """Write the report."""
    if not runtime.is_main_process:
        return
    index, folder = Index.load(DATASET), DATA / "report"
    readers = {name: Reader(artifact(name), name) for name in PANELS}
    tables = {step: read_tables(DATA / "scores" / step) for step in TITLES}
    splits = {step: _split(index, readers, step) for step in TITLES}
    plain = parameters.model_dump(mode="json", exclude={"runtime"})
    summary = summarize(tables, splits, plain, versions())
    gallery = Gallery(index, readers, THUMBNAIL)
    page = render(
        title="Weakly supervised segmentation",
        lead=_lead(index, parameters),
        summary=summary,
        panels=_panels(gallery, summary),
        curves={path.stem: read_rows(path) for path in sorted(CURVES.glob("*.csv"))},
        confusions={step: tables[step]["confusion"] for step in summary.failures},
        mistakes=_mistakes(gallery, summary, tables),
        ranked={step: _ranked(gallery, summary, step, parameters.report.worst) for step in JUDGED},
        rows=[
            gallery.example(name)
            for step in JUDGED
            for name in spread(readers[step].names, min(ON_PAGE, parameters.report.images))
        ],
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "index.html", page.encode())
    write_atomically(folder / FILE, summary.json().encode())
    for step, split in JUDGED.items():
        names = spread(readers[step].names, parameters.report.images)
        write_sheets(
            [Gallery(index, readers).example(name) for name in names], folder / "sheets", split
        )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, without labels of builds;
    packages not installed are left out.
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            continue
    return found


def _split(index: Index, readers: Mapping[str, Reader], step: str) -> str:
    """The split that the images of a step are of, several joined by a comma."""
    reader = readers[step]
    return ", ".join(sorted({index[name].split for name in reader.names if name in index}))


def _lead(index: Index, parameters: Parameters) -> str:
    """What was made of what, in a line."""
    splits = sorted({image.split for image in index.values()})
    counts = ", ".join(f"{len(index.select(split))} {split}" for split in splits)
    return (
        f"{len(index)} images ({counts}) of {len(index.classes)} classes, source {parameters.dataset.format}; "
        f"classifier {parameters.classifier.method}, instance model {parameters.instance.method}, seed {parameters.base.seed}."
    )


def _panels(gallery: Gallery, summary: Summary) -> dict[str, Any]:
    """A panel of each step, of the image in the middle of the pseudo-labels or of the predictions."""
    found: dict[str, Any] = {}
    for step in JUDGED:
        names = ranked(summary.images.get(step, {}), 1)["median"]
        found |= gallery.example(names[0]).panels if names else {}
    return {step: found[title] for step, title in LADDER.items() if title in found}


def _mistakes(
    gallery: Gallery, summary: Summary, tables: Mapping[str, Mapping[str, Table]]
) -> dict[str, Any]:
    return {
        step: mistakes(gallery, step, kinds, tables[step]["failure_places"])
        for step, kinds in summary.failures.items()
    }


def _ranked(gallery: Gallery, summary: Summary, step: str, worst: int) -> dict[str, list[Example]]:
    """Worst, median and best images of a step, with what each step scored there and which one it
    fell behind at.
    """
    own = summary.images.get(step, {})
    scores = {one: found for one, found in summary.images.items() if found.keys() & own.keys()}

    def example(name: str) -> Example:
        """The image with its scores."""
        since = spoiled(name, scores) if len(scores) > 1 else None
        note = f"among the worst tenth from {TITLES[since].lower()} on" if since else ""
        shown = {TITLES[one].lower(): found.get(name) for one, found in scores.items()}
        return gallery.example(name, shown, note).only(SHOWN[step])

    return {place: [example(name) for name in names] for place, names in ranked(own, worst).items()}


def write_sheets(examples: Sequence[Example], folder: Path, split: str) -> None:
    """Write contact sheets of a few rows each; their names depend on their number alone, so that
    runs can be compared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(examples), ROWS_A_SHEET):
        rows = examples[start : start + ROWS_A_SHEET]
        sheet = contact_sheet(
            {row.id: row.panels for row in rows}, {row.id: row.keys for row in rows}
        )
        write_atomically(folder / f"{split}-{start // ROWS_A_SHEET + 1}.png", png(sheet))


if __name__ == "__main__":
    report()
