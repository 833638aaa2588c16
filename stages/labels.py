"""Stage labels: threshold the walked CAMs into semantic and instance pseudo-labels.

Reads data/walk.h5, data/fields.h5, data/segments.h5, data/hints.h5; writes data/labels.h5.
    dvc repro labels
    dvc exp run -S labels.background=0.3
    dvc exp run -S labels.vote=segments
"""

from functools import partial

import numpy as np

from pipeline.core.artifacts import Reader, Record
from pipeline.core.engine import Task
from pipeline.errors import UserError
from pipeline.labelling.hints import hint_of
from pipeline.labelling.pseudo_labels import pseudo_labels, vote_record
from pipeline.params.pseudo_labels import Labels
from stages._command import Parameters, Runtime, artifact, run_per_image, stage


@stage
def labels(parameters: Parameters, runtime: Runtime) -> None:
    """Write semantic and instance pseudo-labels."""
    section = parameters.labels
    walk, fields = Reader(artifact("walk"), "walk"), Reader(artifact("fields"), "fields")
    segments = Reader(artifact("segments"), "segments") if section.vote == "segments" else None
    if segments is not None and not segments.names:
        raise UserError(
            "labels.vote: there are no segments; set segments.backend to superpixels or sam"
        )
    hints, trust = Reader(artifact("hints"), "hints"), parameters.hints
    task = Task(partial(_label, walk, fields, segments, hints, trust.trust, section))
    inputs = [reader.path for reader in (walk, fields, segments, hints) if reader is not None]
    run_per_image("labels", task, walk.names, walk.classes, section, inputs, runtime, trust)


def _label(
    walk: Reader,
    fields: Reader,
    segments: Reader | None,
    hints: Reader,
    trust: float,
    section: Labels,
    name: str,
) -> Record:
    rules = section.model_dump(exclude={"vote", "agreement"})
    walked = walk[name]
    flat = np.zeros(walked["maps"].shape[1:], np.float16)  # of a walk without boundaries
    boundary = fields.array(name, "boundary") if name in fields else flat
    hint = hint_of(hints, name, trust)
    record = pseudo_labels(walked, boundary, **rules, hint=hint)
    if segments is not None:
        record = vote_record(record, segments.array(name, "segments"), section.agreement)
    return record if hint is None else hint.settled_record(record, section.background)


if __name__ == "__main__":
    labels()
