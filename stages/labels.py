"""Stage labels: threshold the walked CAMs into semantic and instance pseudo-labels.

Reads data/walk.h5, data/fields.h5, data/segments.h5, data/hints.h5; writes data/labels.h5.
    dvc repro labels
    dvc exp run -S labels.background=0.3
    dvc exp run -S labels.vote=segments
    dvc exp run -S labels.refine=prompts
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from pipeline.core.artifacts import Reader, Record
from pipeline.core.engine import Task
from pipeline.errors import UserError
from pipeline.labelling.hints import hint_of
from pipeline.labelling.pseudo_labels import pseudo_labels, vote_record
from pipeline.labelling.refinement import queries, refined
from pipeline.params.pseudo_labels import Labels
from pipeline.segmenters import load_prompters
from pipeline.segmenters.prompting import Prompter
from stages._command import Parameters, Runtime, artifact, run_per_image, stage


@stage
def labels(parameters: Parameters, runtime: Runtime) -> None:
    """Write semantic and instance pseudo-labels."""
    section, trust = parameters.labels, parameters.hints
    walk, fields = Reader(artifact("walk"), "walk"), Reader(artifact("fields"), "fields")
    segments, hints = Reader(artifact("segments"), "segments"), Reader(artifact("hints"), "hints")
    _check(section, segments, parameters.segments.embeddings)
    compute = None
    if section.refine == "prompts":
        prompters = load_prompters(parameters.segments, runtime)
        prompter = prompters.get("best") or prompters["whole"]
        compute = partial(_refine, prompter, segments, hints, section.agreement)
    task = Task(
        partial(_label, walk, fields, segments, hints, trust.trust, section),
        partial(_settle, hints, trust.trust, section.background),
        compute,
    )
    used = section.vote == "segments" or section.refine == "prompts"
    inputs = [walk.path, fields.path, hints.path, *([segments.path] if used else [])]
    run_per_image("labels", task, walk.names, walk.classes, section, inputs, runtime, trust)


def _check(section: Labels, segments: Reader, embeddings: bool) -> None:
    """Raise UserError if there is nothing to vote or to be prompted."""
    option = "vote" if section.vote == "segments" else "refine"
    if (section.vote == "segments" or section.refine == "prompts") and not segments.names:
        raise UserError(
            f"labels.{option}: there are no segments; set segments.backend to superpixels or sam"
        )
    if section.refine == "prompts" and not embeddings:
        raise UserError("labels.refine: prompts need segments.embeddings; set it to true")


def _label(
    walk: Reader,
    fields: Reader,
    segments: Reader,
    hints: Reader,
    trust: float,
    section: Labels,
    name: str,
) -> Record:
    rules = section.model_dump(exclude={"vote", "refine", "agreement"})
    walked = walk[name]
    flat = np.zeros(walked["maps"].shape[1:], np.float16)  # of a walk without boundaries
    boundary = fields.array(name, "boundary") if name in fields else flat
    record = pseudo_labels(walked, boundary, **rules, hint=hint_of(hints, name, trust))
    if section.vote == "segments":
        record = vote_record(record, segments.array(name, "segments"), section.agreement)
    return record


def _refine(
    prompter: Prompter,
    segments: Reader,
    hints: Reader,
    agreement: float,
    names: Sequence[str],
    records: Sequence[Record],
) -> list[Record]:
    found = list[Record]()
    for name, record in zip(names, records, strict=True):
        said = hints.array(name, "pixels") if name in hints else None
        answers = prompter.prompt([*queries(record, segments[name], said)])
        found.append(refined(record, [(sure > 0).cpu().numpy() for sure in answers], agreement))
    return found


def _settle(hints: Reader, trust: float, background: float, name: str, record: Record) -> Record:
    hint = hint_of(hints, name, trust)
    return record if hint is None else hint.settled_record(record, background)


if __name__ == "__main__":
    labels()
