"""Stages on a GPU that is played on the CPU: none mixes devices, and each writes what it writes on
the CPU up to rounding.
"""

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks.waits import observe, run_here
from pipeline.core.artifacts import Reader
from tests.support.repository import set_parameters

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def losses(repository: Path, stage: str) -> list[float]:
    with (repository / f"data/curves/{stage}.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("stage", ["cams", "fields", "labels", "predictions"])
def test_images_get_what_they_get_on_the_cpu(restored: Path, stage: str) -> None:
    path = restored / f"data/{stage}.h5"
    expected = {name: dict(record) for name, record in Reader(path, stage).items()}
    path.unlink()
    asked = observe(restored, stage)
    assert sum(one.images for one in asked) == len(expected)
    assert all(one.operators for one in asked)
    for name, record in Reader(path, stage).items():
        for key, values in record.items():
            known = np.asarray(expected[name][key], np.float64)
            apart = np.abs(np.asarray(values, np.float64) - known)
            if values.dtype.kind == "f":
                assert apart.max(initial=0) <= 2e-3 * max(1.0, np.abs(known).max(initial=0)), (
                    name,
                    key,
                )
            else:
                assert np.count_nonzero(apart) <= 0.01 * apart.size, (name, key)


@pytest.mark.parametrize(
    ("stage", "options"),
    [
        ("classifier", {"classifier.method": "cam"}),
        ("classifier", {"classifier.method": "seenet"}),
        ("classifier", {"classifier.method": "puzzlecam"}),
        ("classifier", {"classifier.method": "s2c", "classifier.s2c.warmup": 0}),
        ("irnet", {}),
        ("semantic", {}),
        ("instance", {"instance.method": "sparseinst"}),
        ("instance", {"instance.method": "maskrcnn", "instance.maskrcnn.channels": 8}),
    ],
    ids=["cam", "seenet", "puzzlecam", "s2c", "irnet", "semantic", "sparseinst", "maskrcnn"],
)
def test_trainings_learn_what_they_learn_on_the_cpu(
    restored: Path, stage: str, options: dict[str, object]
) -> None:
    set_parameters(restored, options)
    run_here(restored, "guidance")
    run_here(restored, stage)
    expected = losses(restored, stage)
    asked = observe(restored, stage)
    # irnet looks once more at every image when it has learned
    assert len(asked) >= len(expected) > 1
    assert losses(restored, stage) == pytest.approx(expected, rel=5e-3)
