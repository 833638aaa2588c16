"""Stage scores: compare one artefact with the pixel masks, where the source has any.

Reads data/dataset and data/{cams,labels,predictions}.h5; writes data/scores/NAME.json and the tables in data/scores/NAME/.
    dvc repro scores@labels
    python -m stages.scores labels
"""

from pathlib import Path

import click

from pipeline.datasets.index import Index
from pipeline.metrics.evaluation import Tables, evaluate
from pipeline.store import Reader
from pipeline.work import write_atomically
from stages.entry import DATA, DATASET, Parameters, Runtime, artefact, stage


@stage
def scores(parameters: Parameters, runtime: Runtime, name: str) -> None:
    """Score the artefact NAME (cams, labels or predictions)."""
    if not runtime.leads:
        return
    index, reader = Index.load(DATASET), Reader(artefact(name), name)
    names = [picture for picture in reader.names if index.has_masks(picture)]
    if not names:
        click.echo(
            f"scores: no picture of data/{name}.h5 has a pixel mask, so there is nothing to compare with; no scores written"
        )
    tables = evaluate(index, reader, names, background=parameters.scores.background)
    write(tables, DATA / "scores", name)


def write(tables: Tables, folder: Path, name: str) -> None:
    """Write the scores as json and every table as csv; files are replaced, never written into, as DVC's cache may share them."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{name}.json", tables.json().encode())
    for table, text in tables.csv().items():
        write_atomically(folder / name / f"{table}.csv", text.encode())


scores.params.insert(0, click.Argument(["name"], type=click.Choice(["cams", "labels", "predictions"])))

if __name__ == "__main__":
    scores()
