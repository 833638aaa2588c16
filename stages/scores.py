"""Stage scores: compare one rung of the ladder with the pixel masks, where the source has any.

Reads data/dataset and data/{cams,seeds,labels,predictions}.h5, or for walk data/cams.h5 and data/fields.h5, from which it walks again
with the parameters of section labels; writes the few scores that runs are compared by to data/scores/NAME.json and all the others
to tables in data/scores/NAME/.
    dvc repro scores@labels
    python -m stages.scores walk
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from tqdm import tqdm

from pipeline import mapping
from pipeline.datasets.index import Index
from pipeline.labels import Walked, class_maps
from pipeline.metrics.evaluation import evaluate
from pipeline.metrics.rungs import RUNGS
from pipeline.metrics.tables import Tables
from pipeline.store import Reader, Record
from pipeline.work import write_atomically
from stages.entry import DATA, DATASET, Parameters, Runtime, artefact, stage
from stages.walking import walking


@stage
def scores(parameters: Parameters, runtime: Runtime, name: str) -> None:
    """Score NAME: cams, seeds, walk (its result before the threshold), labels or predictions."""
    if not runtime.leads:
        return
    index, walked = Index.load(DATASET), name == "walk"
    readers = [Reader(artefact(one), one) for one in (("cams", "fields") if walked else (name,))]
    names = [picture for picture in readers[0].names if index.has_masks(picture)]
    if not names:
        click.echo(
            f"scores: no picture of {readers[0].path} has a pixel mask, so there is nothing to compare with; no scores written"
        )
    records = walk(names, parameters, runtime, *readers) if walked else _stored(readers[0], names)
    shown = tqdm(records, desc=f"scores {name}", total=len(names), unit="picture", mininterval=1)
    threshold = parameters.labels.background if walked else parameters.scores.background
    write(evaluate(index, name, shown, threshold=threshold), DATA / "scores")


def _stored(reader: Reader, names: Sequence[str]) -> Iterator[tuple[str, Record]]:
    return ((name, reader[name]) for name in names)


@dataclass(frozen=True, slots=True)
class Scoring:
    """What the worker processes make of a walk."""

    normalise: str

    def __call__(self, name: str, walked: Walked) -> Record:
        """Class maps before the threshold."""
        return class_maps(walked, normalise=self.normalise)


def walk(
    names: Sequence[str], parameters: Parameters, runtime: Runtime, cams: Reader, fields: Reader
) -> Iterator[tuple[str, Record]]:
    """Class maps that the walk makes of the pictures, as stage labels does before its threshold; raises PictureError if one fails."""
    task = walking(cams, fields, parameters, runtime, Scoring(parameters.labels.normalise))
    return mapping.results(task, names, stage="scores walk", runtime=runtime)


def write(tables: Tables, folder: Path) -> None:
    """Write the scores as json and every table as csv; files are replaced, never written into, as DVC's cache may share them."""
    (folder / tables.step).mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{tables.step}.json", tables.json().encode())
    for table, text in tables.csv().items():
        write_atomically(folder / tables.step / f"{table}.csv", text.encode())


scores.params.insert(0, click.Argument(["name"], type=click.Choice([*RUNGS])))

if __name__ == "__main__":
    scores()
