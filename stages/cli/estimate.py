"""How long a run will take on this machine: each stage is measured on a few of its images.

Every stage runs twice in a folder of its own, for 1 training step or on 2 images, then for 2 steps
or on 4 images. The difference is the time of a step or of 2 images, without that of the start.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.core.artifacts import Writer
from pipeline.data.index import Index
from pipeline.params import Parameters
from pipeline.params.lengths import LEAST_STEPS, steps
from pipeline.readers.validation import Survey
from stages._command import PARAMETERS

ROOT = Path(__file__).resolve().parents[2]
RUNS = ((2, 1), (4, 2))
"""(images, training steps) of the two runs."""
START = 3.0
"""Seconds that a stage takes to start."""


def expected_seconds(parameters: Parameters, survey: Survey) -> dict[str, float]:
    """Measure on some images of a source how long each stage takes for all of them.

    Returns:
        Seconds by stage; nothing if a stage fails on so few images.
    """
    train = [image for image in survey.images if image.split == "train" and image.tags]
    chosen = train[:: max(1, len(train) // RUNS[1][0])][: RUNS[1][0]]
    source = Path(parameters.dataset.source).resolve()
    values = parameters.model_dump() | {"runtime": {**parameters.runtime.model_dump(), "work": ""}}
    with tempfile.TemporaryDirectory(prefix="weakmask-") as folder:
        for images, number in RUNS:
            run = Path(folder, str(images))
            entries = [
                replace(entry, id=f"{split}/{entry.id}", split=split, semantic=None, instances=None)
                for entry in chosen[:images]
                for split in ("train", "val")
            ]
            Index(survey.classes, entries, source, source, {0: 0}).save(run / "data/dataset")
            with Writer(run / "data/hints.h5", "hints", survey.classes):
                pass  # drawing some takes no time worth measuring
            for stage in LEAST_STEPS:
                epochs = number * values[stage]["batch"] / len(chosen[:images])
                values[stage] = {**values[stage], "epochs": epochs}
            values["runtime"]["work"] = str(run / ".work")
            (run / PARAMETERS).write_text(json.dumps(values), encoding="utf-8")
        measured = subprocess.run(
            [sys.executable, "-m", "stages.cli.estimate", folder],
            cwd=ROOT,
            env=os.environ | {"TQDM_DISABLE": "1"},
            capture_output=True,
        )
        if measured.returncode:
            return {}
        took = json.loads(measured.stdout.splitlines()[-1])
    units = dict.fromkeys(took[0], len(train)) | {"predictions": survey.count_split("val")}
    units |= {stage: steps(parameters, stage, len(train)) for stage in LEAST_STEPS}
    return extrapolate(took, units)


def extrapolate(took: Sequence[Mapping[str, float]], units: Mapping[str, int]) -> dict[str, float]:
    """Return the seconds of each stage for a number of units (images, or training steps), from its
    seconds in the two runs.
    """
    few, many = took
    images, number = (after - before for before, after in zip(*RUNS, strict=True))
    return {
        stage: START + max(0.0, many[stage] - few[stage]) * units[stage] / measured
        for stage in few
        for measured in [number if stage in LEAST_STEPS else images]
    }


def measure(folder: Path) -> list[dict[str, float]]:
    """Run all stages in the two folders of `expected_seconds`; return their seconds."""
    from stages.cams import cams
    from stages.classifier import classifier
    from stages.features import features
    from stages.fields import fields
    from stages.guidance import guidance
    from stages.instance import instance
    from stages.irnet import irnet
    from stages.labels import labels
    from stages.predictions import predictions
    from stages.seeds import seeds
    from stages.segments import segments
    from stages.semantic import semantic
    from stages.walk import walk

    order = (segments, guidance, features, classifier, cams, seeds, irnet, fields, walk, labels)
    took = []
    for images, _ in RUNS:
        os.chdir(folder / str(images))
        seconds: dict[str, float] = {}
        for stage in (*order, semantic, instance, predictions):
            start = time.perf_counter()
            assert stage.callback is not None
            assert stage.name is not None
            stage.callback(params=PARAMETERS)
            seconds[stage.name] = time.perf_counter() - start
        took.append(seconds)
    return took


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
