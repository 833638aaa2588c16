"""Stage seeds: confident foreground, confident background and ignore, by two thresholds and a dense
CRF.

Reads data/dataset, data/cams.h5, data/hints.h5; writes data/seeds.h5.
    dvc repro seeds
    dvc exp run -S seeds.foreground=0.4 -S seeds.background=0.1 seeds
    dvc exp run -S hints.trust=0.5             # seeds and what follows
"""

from functools import partial

from pipeline.core.artifacts import Reader, Record
from pipeline.core.engine import Task
from pipeline.data.index import Index
from pipeline.labelling.crf import densecrf
from pipeline.labelling.hints import hint_of
from pipeline.labelling.seeds import seed_map
from pipeline.params.pseudo_labels import Seeds
from stages._command import DATASET, Parameters, Runtime, artifact, run_per_image, stage


@stage
def seeds(parameters: Parameters, runtime: Runtime) -> None:
    """Turn class activation maps into confident seeds."""
    index, cams, section = Index.load(DATASET), Reader(artifact("cams"), "cams"), parameters.seeds
    if section.crf.iterations:
        densecrf()  # or its absence is reported for every image
    hints, trust = Reader(artifact("hints"), "hints"), parameters.hints
    task = Task(partial(_seed, index, cams, hints, trust.trust, section))
    inputs = [DATASET, cams.path, hints.path]
    run_per_image("seeds", task, cams.names, index.classes, section, inputs, runtime, trust)


def _seed(
    index: Index, cams: Reader, hints: Reader, trust: float, section: Seeds, name: str
) -> Record:
    record, hint = cams[name], hint_of(hints, name, trust)
    settings = section.model_dump()
    seeds = seed_map(index.image(name), record["cams"], record["labels"], **settings, hint=hint)
    return {"seeds": seeds}


if __name__ == "__main__":
    seeds()
