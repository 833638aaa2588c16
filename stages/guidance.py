"""Stage guidance: pass the segments on to the classifier if its method learns from them, otherwise
an artifact without images. Thus a change of the segments retrains the classifier only with s2c.

Reads data/segments.h5; writes data/guidance.h5, a hard link to it where the file system has them.
    dvc repro guidance
"""

import os
import shutil

from pipeline.core.artifacts import Reader, Writer
from stages._command import Parameters, Runtime, artifact, stage

GUIDED = frozenset({"s2c"})
"""Methods that learn from segments."""


@stage
def guidance(parameters: Parameters, runtime: Runtime) -> None:
    """Pass the segments on to the classifier if it learns from them."""
    if not runtime.is_main_process:
        return
    segments, out = Reader(artifact("segments"), "segments"), artifact("guidance")
    if parameters.classifier.method not in GUIDED:
        with Writer(out, "segments", segments.classes):
            return
    part = out.with_name(out.name + ".part")
    part.unlink(missing_ok=True)
    try:
        os.link(segments.path, part)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(segments.path, part)
    os.replace(part, out)


if __name__ == "__main__":
    guidance()
