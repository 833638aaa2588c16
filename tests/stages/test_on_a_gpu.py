"""Every stage on a GPU writes what it writes on the CPU, up to rounding.

Each test runs twice: on a fake CUDA device (tests/support/fake_cuda.py), which finds mixed devices
on any machine, and on a real one where there is one: `pytest -m gpu tests/stages/test_on_a_gpu.py`.
"""

import contextlib
import csv
import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.core.artifacts import Reader
from tests.support.fake_cuda import fake_cuda
from tests.support.repository import BY_IMAGE, set_parameters

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Device = Callable[[], AbstractContextManager[object]]
TRAININGS: dict[str, dict[str, object]] = {
    "cam": {"classifier.method": "cam"},
    "seenet": {"classifier.method": "seenet"},
    "puzzlecam": {"classifier.method": "puzzlecam"},
    "s2c": {"classifier.method": "s2c", "classifier.s2c.warmup": 0},
    "irnet": {},
    "semantic": {},
    "sparseinst": {"instance.method": "sparseinst"},
    "maskrcnn": {"instance.method": "maskrcnn", "instance.maskrcnn.channels": 8},
}
"""Parameters that choose a method, by its name, and the stages without methods by theirs."""


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.gpu)])
def cuda(request: pytest.FixtureRequest) -> Device:
    """What makes a CUDA device available to the stages that run inside it."""
    if request.param == "fake":
        return fake_cuda
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device on this machine")
    return partial(torch.backends.cudnn.flags, allow_tf32=False)


@pytest.fixture
def on_cpu(restored: Path) -> Path:
    """The finished run, with parameters under which both devices compute alike."""
    set_parameters(restored, {"runtime.device": "cpu", "runtime.precision": "float32"})
    return restored


def run_on(device: str, folder: Path, stage: str) -> None:
    """Run a stage in a folder, in this process."""
    set_parameters(folder, {"runtime.device": device})
    command = getattr(importlib.import_module(f"stages.{stage}"), stage)
    with contextlib.chdir(folder):
        command.main([], standalone_mode=False)


def losses(folder: Path, stage: str) -> list[float]:
    with (folder / f"data/curves/{stage}.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def compare(folder: Path, stage: str, before: dict[str, dict[str, np.ndarray]]) -> None:
    """Assert that the records of an artifact differ from those before by rounding alone."""
    found = Reader(folder / f"data/{stage}.h5", stage)
    assert found.keys() == before.keys()
    for name, record in found.items():
        for key, values in record.items():
            known = np.asarray(before[name][key], np.float64)
            apart = np.abs(np.asarray(values, np.float64) - known)
            if values.dtype.kind == "f":
                assert apart.max(initial=0) <= 2e-3 * max(1.0, np.abs(known).max(initial=0)), key
            else:
                assert np.count_nonzero(apart) <= 0.01 * apart.size, (name, key)


def records(folder: Path, stage: str) -> dict[str, dict[str, np.ndarray]]:
    return {
        name: dict(record) for name, record in Reader(folder / f"data/{stage}.h5", stage).items()
    }


@pytest.mark.parametrize("stage", BY_IMAGE)
def test_images_get_what_they_get_on_the_cpu(cuda: Device, on_cpu: Path, stage: str) -> None:
    expected = records(on_cpu, stage)
    (on_cpu / f"data/{stage}.h5").unlink()
    with cuda():
        run_on("cuda", on_cpu, stage)
    compare(on_cpu, stage, expected)


@pytest.mark.parametrize("method", TRAININGS)
def test_trainings_learn_what_they_learn_on_the_cpu(
    cuda: Device, on_cpu: Path, method: str
) -> None:
    stage = next(iter(TRAININGS[method]), method).partition(".")[0]
    set_parameters(on_cpu, TRAININGS[method])
    run_on("cpu", on_cpu, "guidance")
    run_on("cpu", on_cpu, stage)
    expected = losses(on_cpu, stage)
    with cuda():
        run_on("cuda", on_cpu, stage)
    assert len(expected) > 1
    assert losses(on_cpu, stage) == pytest.approx(expected, rel=5e-3)


def test_mask_rcnn_predicts_what_it_predicts_on_the_cpu(cuda: Device, on_cpu: Path) -> None:
    """SparseInst's predictions are those of stage predictions above."""
    set_parameters(on_cpu, TRAININGS["maskrcnn"])
    run_on("cpu", on_cpu, "instance")
    run_on("cpu", on_cpu, "predictions")
    expected = records(on_cpu, "predictions")
    (on_cpu / "data/predictions.h5").unlink()
    with cuda():
        run_on("cuda", on_cpu, "predictions")
    compare(on_cpu, "predictions", expected)
