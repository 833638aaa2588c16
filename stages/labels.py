"""Stage labels: grow the CAMs by a random walk and write semantic and instance pseudo-labels.

Reads data/cams.h5, data/fields.h5, data/segments.h5; writes data/labels.h5.
    dvc repro labels
    dvc exp run -S labels.background=0.3
    dvc exp run -S labels.vote=segments
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from pipeline.labels import Walked, pseudo_labels
from pipeline.store import Reader, Record
from pipeline.voting import vote_record
from stages import pictures
from stages.entry import Parameters, Runtime, artefact, stage
from stages.walking import walking


@dataclass(frozen=True, slots=True)
class Labelling:
    """How the worker processes label; rules: options of pseudo_labels, segments: those that vote, if any."""

    rules: Mapping[str, Any]
    segments: Reader | None
    agreement: float

    def __call__(self, name: str, walked: Walked) -> Record:
        """The pseudo-labels, voted on by the segments if there are any."""
        record = pseudo_labels(walked, **self.rules)
        if self.segments is None:
            return record
        return vote_record(record, self.segments.array(name, "segments"), self.agreement)


@stage
def labels(parameters: Parameters, runtime: Runtime) -> None:
    """Write semantic and instance pseudo-labels."""
    section = parameters.labels
    cams, fields = Reader(artefact("cams"), "cams"), Reader(artefact("fields"), "fields")
    voters = Reader(artefact("segments"), "segments") if section.vote == "segments" else None
    if voters is not None and not voters.names:
        raise UserError("labels.vote: there are no segments; set segments.backend to superpixels or sam")
    rules = section.model_dump(include={"background", "normalise", "min_area", "cut"})
    task = walking(cams, fields, parameters, runtime, Labelling(rules, voters, section.agreement))
    names = [name for name in cams.names if name in fields]
    inputs = [reader.path for reader in (cams, fields, voters) if reader is not None]
    pictures.run("labels", task, names, cams.classes, section, inputs, runtime)


if __name__ == "__main__":
    labels()
