"""Stage hints: what persons and other models know about pixels of the training images, gated by
their tags; an artifact without images where the source has no folder hints/.

Reads data/dataset, data/segments.h5 and hints/ of the source; writes data/hints.h5.
    dvc repro hints
"""

import logging
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pipeline.core.artifacts import Reader, Record
from pipeline.core.engine import Task
from pipeline.data.images import summarize
from pipeline.data.index import Index
from pipeline.errors import count
from pipeline.readers.hints import ImageHints, read_hints, render
from stages._command import DATASET, Parameters, Runtime, artifact, run_per_image, stage

log = logging.getLogger(__name__)


@stage
def hints(parameters: Parameters, runtime: Runtime) -> None:
    """Draw the hints of each image and drop those of classes that it does not have."""
    index, segments = Index.load(DATASET), Reader(artifact("segments"), "segments")
    found = read_hints(Path(parameters.dataset.source), index)
    for _, line in summarize(found.problems):
        log.warning("hints: %s", line)
    task = Task(partial(_render, dict(found.images), index, segments))
    inputs = [DATASET, segments.path, *found.files]
    names, section = [*found.images], parameters.hints
    run_per_image("hints", task, names, index.classes, section, inputs, runtime)
    if names and runtime.is_main_process:
        written = Reader(artifact("hints"), "hints")
        gated = Counter(int(c) for name in written for c in written.stored(name)[1]["gated"])
        dropped = ", ".join(f"{index.classes[c]} {n}" for c, n in sorted(gated.items()))
        log.info(
            "hints: %s; of classes that the tags exclude: %s",
            count(len(names), "image"),
            dropped or "none",
        )


def _render(hints: Mapping[str, ImageHints], index: Index, segments: Reader, name: str) -> Record:
    ids = segments.array(name, "segments") if name in segments else None
    return render(hints[name], index, name, ids)


if __name__ == "__main__":
    hints()
