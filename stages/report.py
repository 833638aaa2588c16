"""Stage report: one offline HTML page with scores, curves, sheets and the worst pictures, and the sheets as PNG files.

Reads all artefacts, scores and curves; writes data/report/index.html and data/report/sheets/*.png.
    dvc repro
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.datasets.index import Index
from pipeline.store import Reader
from pipeline.views.gathering import PANELS, Gallery, read_rows, read_scores, spread, worst_rows
from pipeline.views.report import Example, render
from pipeline.views.sheets import contact_sheet, png
from pipeline.work import write_atomically
from stages.entry import CURVES, DATA, DATASET, Parameters, Runtime, artefact, stage

SCORED = ("cams", "labels", "predictions")
ROWS_A_SHEET = 4


@stage
def report(parameters: Parameters, runtime: Runtime) -> None:
    """Write the report."""
    if not runtime.leads:
        return
    gallery = Gallery(Index.load(DATASET), {name: Reader(artefact(name), name) for name in PANELS})
    section, folder = parameters.report, DATA / "report"
    examples = {
        split: [gallery.example(name) for name in spread(gallery.readers[source].names, section.pictures)]
        for split, source in (("train", "labels"), ("val", "predictions"))
    }
    tables = {name: DATA / "scores" / name for name in SCORED}
    page = render(
        title="Weakly supervised segmentation",
        scores={name: read_scores(DATA / "scores" / f"{name}.json") for name in SCORED},
        curves={path.stem: read_rows(path) for path in sorted(CURVES.glob("*.csv"))}
        | {"CAM threshold": read_rows(tables["cams"] / "curve.csv")},
        rows=[*examples["train"], *examples["val"]],
        worst={
            name: [
                gallery.example(row["id"], {"mIoU": float(row["miou"])})
                for row in worst_rows(read_rows(tables[name] / "pictures.csv"), section.worst)
            ]
            for name in ("labels", "predictions")
        },
        parameters=parameters.model_dump(mode="json", exclude={"runtime"}),
        confusions={name: read_rows(tables[name] / "confusion.csv") for name in ("labels", "predictions")},
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "index.html", page.encode())
    for split, shown in examples.items():
        write_sheets(shown, folder / "sheets", split)


def write_sheets(examples: Sequence[Example], folder: Path, split: str) -> None:
    """Write contact sheets of a few rows each; their names depend on their number alone, so that runs can be compared."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(examples), ROWS_A_SHEET):
        rows = examples[start : start + ROWS_A_SHEET]
        sheet = contact_sheet({row.id: row.panels for row in rows}, {row.id: row.keys for row in rows})
        write_atomically(folder / f"{split}-{start // ROWS_A_SHEET + 1}.png", png(sheet))


if __name__ == "__main__":
    report()
