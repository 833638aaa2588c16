"""How every per-picture stage runs: its name says which section, layout and file are its own."""

from collections.abc import Sequence
from pathlib import Path

from pipeline import mapping, work
from pipeline.params.section import Section
from pipeline.runtime import Runtime
from stages.entry import artefact


def run(
    stage: str,
    task: mapping.Task,
    names: Sequence[str],
    classes: Sequence[str],
    section: Section,
    inputs: Sequence[Path],
    runtime: Runtime,
) -> None:
    """Apply `task` to the pictures `names` and write the artefact of `stage`.

    section and inputs (files, or the dataset's folder) are what the result follows from: finished shards are taken up again only if
    these are the same.
    """
    mapping.run(
        task,
        names,
        artefact(stage),
        stage=stage,
        format_=stage,
        classes=classes,
        fingerprint=work.fingerprint(section.model_dump(), inputs),
        runtime=runtime,
    )
