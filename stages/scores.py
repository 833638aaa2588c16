"""Stage scores: compare the artifact of one step with the ground-truth masks, where there are any.

Reads data/dataset, data/hints.h5 and data/{cams,seeds,walk,labels,predictions}.h5; leaves out the
images that persons gave hints on, so that no step is praised for what they said. Where no image has
a mask, reads the trial set in hints/trial/ of the source. Writes the main
scores, by which runs are compared, to data/scores/NAME.json and all others to data/scores/NAME/.
    dvc repro scores@labels
    python -m stages.scores walk
"""

from pathlib import Path

import click
from tqdm import tqdm

from pipeline.core.artifacts import Reader
from pipeline.core.resume import write_atomically
from pipeline.data.index import Index
from pipeline.labelling.hints import is_corrected
from pipeline.metrics.steps import STEPS, Options, Tables, evaluate
from pipeline.metrics.truth import TrialTruth, Truth
from stages._command import DATA, DATASET, Parameters, Runtime, artifact, stage


@stage
@click.argument("name", type=click.Choice([*STEPS]))
def scores(parameters: Parameters, runtime: Runtime, name: str) -> None:
    """Score the artifact NAME."""
    if not runtime.is_main_process:
        return
    index, reader = Index.load(DATASET), Reader(artifact(name), name)
    hints = Reader(artifact("hints"), "hints")
    corrected = {image for image in hints.names if is_corrected(hints[image])}
    truth = Truth(index)
    if not truth.known(reader.names):
        truth = TrialTruth(index, Path(parameters.dataset.source))
    names = truth.known([image for image in reader.names if image not in corrected])
    if not names and any(map(index.has_masks, index)):  # else `weakmask scores` says so, once
        click.echo(
            f"scores: no image of {reader.path} has a ground-truth mask and no hints of a person; "
            "nothing is scored"
        )
    bar = tqdm(names, desc=f"scores {name}", unit="image", mininterval=1, disable=not names)
    thresholds = {"cams": parameters.scores.background, "walk": parameters.labels.background}
    options = Options(
        thresholds.get(name, 0.0),  # the others are not maps
        parameters.labels.normalize,
        instances=name != "predictions" or parameters.instance.method != "none",
    )
    tables = evaluate(truth, name, ((image, reader[image]) for image in bar), options)
    _write(tables, DATA / "scores")


def _write(tables: Tables, folder: Path) -> None:
    """Write the scores as JSON and every table as CSV, into new files: DVC's cache may share the
    old ones.
    """
    (folder / tables.step).mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{tables.step}.json", tables.json().encode())
    for table, text in tables.csv().items():
        write_atomically(folder / tables.step / f"{table}.csv", text.encode())


if __name__ == "__main__":
    scores()
