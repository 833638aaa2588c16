"""Stage labels: grow the CAMs by a random walk and write semantic and instance pseudo-labels.

Reads data/cams.h5, data/fields.h5, data/segments.h5; writes data/labels.h5.
    dvc repro labels
    dvc exp run -S labels.background=0.3
    dvc exp run -S labels.vote=segments
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import mapping
from pipeline.errors import UserError
from pipeline.labels import Evidence, Walked, pseudo_labels, walk_instances
from pipeline.store import Reader, Record
from pipeline.voting import vote_record
from stages import pictures
from stages.entry import Parameters, Runtime, artefact, stage


@dataclass(frozen=True, slots=True)
class Sources:
    """What the worker processes read and the thresholds they apply."""

    cams: Reader
    fields: Reader
    segments: Reader | None
    background: float
    normalise: str
    min_area: float
    cut: float
    agreement: float

    def load(self, name: str) -> Evidence:
        """CAMs and fields of a picture."""
        cams, fields = self.cams[name], self.fields[name]
        height, width = map(int, cams["size"])
        return Evidence(
            cams["cams"], cams["labels"], fields["boundary"], fields["displacement"], (height, width)
        )

    def finish(self, name: str, walked: Walked) -> Record:
        """The pseudo-labels, voted on by the segments if there are any."""
        record = pseudo_labels(
            walked,
            background=self.background,
            normalise=self.normalise,
            min_area=self.min_area,
            cut=self.cut,
        )
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
    sources = Sources(
        cams,
        fields,
        voters,
        section.background,
        section.normalise,
        section.min_area,
        section.cut,
        section.agreement,
    )

    def compute(names: Sequence[str], evidence: Sequence[Evidence]) -> list[Walked]:
        """What the walk makes of each picture's evidence."""
        return walk_instances(
            evidence, runtime.device, **section.walk.model_dump(), **section.centroids.model_dump()
        )

    task = mapping.Task(sources.load, sources.finish, compute)
    names = [name for name in cams.names if name in fields]
    inputs = [reader.path for reader in (cams, fields, voters) if reader is not None]
    pictures.run("labels", task, names, cams.classes, section, inputs, runtime)


if __name__ == "__main__":
    labels()
