"""Stage report: one offline HTML page, its numbers as JSON, and contact sheets as PNG files.

Reads all artifacts, scores and curves; writes data/report/index.html, data/report/report.json
(which `weakmask report-diff` compares) and data/report/sheets/*.png.
    dvc repro

The page names the versions of the packages that made it, which are part of its input like the code;
equal versions give equal bytes on every machine. What depends on the machine (device, time, build
labels such as +cu132) is left out.
"""

from pathlib import Path

from pipeline.core.artifacts import Reader
from pipeline.core.resume import write_atomically
from pipeline.data.index import Index
from pipeline.errors import count
from pipeline.views import report_data
from pipeline.views.gallery import RANKED, ImageGallery, evenly_spaced
from pipeline.views.report import render
from pipeline.views.report_data import FILE, SPLITS, TITLES, read_rows, read_tables
from stages._command import CURVES, DATA, DATASET, Parameters, Runtime, artifact, stage

ARTIFACTS = ("cams", "seeds", "fields", "walk", "labels", "predictions")
ON_PAGE = 4
"""Images of each ranked step at equal distances on the page; sheets show more."""
THUMBNAIL = 300
"""Longer side of the page's panels in pixels."""


@stage
def report(parameters: Parameters, runtime: Runtime) -> None:
    """Write the report."""
    if not runtime.is_main_process:
        return
    index, folder, section = Index.load(DATASET), DATA / "report", parameters.report
    readers = {name: Reader(artifact(name), name) for name in ARTIFACTS}
    tables = {step: read_tables(DATA / "scores" / step) for step in TITLES}
    values = parameters.model_dump(mode="json", exclude={"runtime"})
    data = report_data.collect(tables, values, report_data.package_versions())
    normalize = parameters.labels.normalize
    gallery = ImageGallery(index, readers, normalize, THUMBNAIL)
    page = render(
        title=f"{Path(parameters.dataset.source or parameters.dataset.format).name}: "
        "weakly supervised segmentation",
        lead=(
            f"{count(len(index), 'image')} ({_counts(index)}) of "
            f"{count(len(index.classes), 'class')}, "
            f"source {parameters.dataset.format}; classifier {parameters.classifier.method}, "
            f"instance model {parameters.instance.method}, seed {parameters.base.seed}."
        ),
        data=data,
        panels=gallery.step_panels(data),
        curves={path.stem: read_rows(path) for path in sorted(CURVES.glob("*.csv"))},
        confusions={step: tables[step]["confusion"] for step in data.failures},
        failures={
            step: gallery.failures(data, step, tables[step]["failure_places"])
            for step in data.failures
        },
        found={} if data.steps else {step: gallery.found(step) for step in RANKED},
        ranked={step: gallery.ranked(data, step, section.worst) for step in RANKED},
        examples=[
            gallery.example(name)
            for step in RANKED
            for name in evenly_spaced(readers[step].names, min(ON_PAGE, section.images))
        ],
    )
    (folder / "sheets").mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "index.html", page.encode())
    write_atomically(folder / FILE, data.json().encode())
    # numbered, not named by their images: so the sheets of two runs can be compared
    for step in RANKED:
        sheets = ImageGallery(index, readers, normalize).contact_sheets(
            evenly_spaced(readers[step].names, section.images)
        )
        for number, sheet in enumerate(sheets, start=1):
            write_atomically(folder / "sheets" / f"{SPLITS[step]}-{number}.png", sheet)


def _counts(index: Index) -> str:
    splits = sorted({image.split for image in index.values()})
    return ", ".join(f"{len(index.select(split))} {split}" for split in splits)


if __name__ == "__main__":
    report()
