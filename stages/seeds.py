"""Stage seeds: confident foreground, confident background, ignore, by two thresholds and a dense
CRF.

Reads data/dataset, data/cams.h5; writes data/seeds.h5.
    dvc repro seeds
    dvc exp run -S seeds.foreground=0.4 -S seeds.background=0.1 seeds
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.core import engine
from pipeline.core.artifacts import Reader, Record
from pipeline.data.index import Index
from pipeline.labelling.seeds import seed_map
from stages import _command
from stages._command import DATASET, Parameters, Runtime, artifact, stage


@dataclass(frozen=True, slots=True)
class Sources:
    """What the worker processes read and the settings they apply."""

    index: Index
    cams: Reader
    settings: Mapping[str, Any]

    def load(self, name: str) -> tuple[np.ndarray, Record]:
        """The image and its CAMs."""
        return self.index.image(name), self.cams[name]

    def finish(self, name: str, loaded: tuple[np.ndarray, Record]) -> Record:
        """The seed map."""
        image, cams = loaded
        return {"seeds": seed_map(image, cams["cams"], cams["labels"], **self.settings)}


@stage
def seeds(parameters: Parameters, runtime: Runtime) -> None:
    """Turn class activation maps into confident seeds."""
    index, cams, section = Index.load(DATASET), Reader(artifact("cams"), "cams"), parameters.seeds
    sources = Sources(index, cams, section.model_dump())
    task = engine.Task(sources.load, sources.finish)
    names = cams.names
    _command.run("seeds", task, names, index.classes, section, [DATASET, cams.path], runtime)


if __name__ == "__main__":
    seeds()
