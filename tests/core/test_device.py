"""The machine: devices, precision, ranks and the folder of unfinished work."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.core.device import (
    Runtime,
    RuntimeSettingError,
    find_device,
    resolve,
    to_device,
    to_numpy,
)

SETTINGS: dict[str, Any] = {
    "device": "cpu",
    "precision": "auto",
    "workers": 1,
    "batch": 2,
    "shard": 4,
    "checkpoint": 60,
    "skip_bad": False,
    "work": ".work",
}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEAKMASK_WORK", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def settle(**changes: Any) -> Runtime:
    return resolve(**SETTINGS | changes)


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)


@pytest.mark.defect("irn-6")
def test_auto_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    found = settle(device="auto")
    assert (found.device, found.precision) == (torch.device("cpu"), torch.float32)
    gpus(monkeypatch, 2)
    found = settle(device="auto")
    assert (found.device, found.precision) == (torch.device("cuda", 0), torch.bfloat16)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert settle(device="auto").device == torch.device("cuda", 1)


@pytest.mark.defect("irn-6")
@pytest.mark.parametrize(
    ("count", "changes", "message"),
    [
        (0, {"device": "cuda"}, "torch finds no GPU"),
        (0, {"device": "mps"}, "'mps' is not supported"),
        (2, {"device": "cuda:2"}, "no GPU 2, the machine has 2"),
        (0, {"device": "gpu"}, "'gpu' is not a torch device; use auto, cpu"),
        (0, {"device": "meta"}, "'meta' is not supported; use auto, cpu"),
        (0, {"precision": "float16"}, "runtime.precision: float16 needs a GPU"),
    ],
)
def test_what_this_machine_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, count: int, changes: dict[str, str], message: str
) -> None:
    gpus(monkeypatch, count)
    with pytest.raises(RuntimeSettingError, match=message):
        settle(**changes)


def test_a_device_error_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert find_device("auto") == torch.device("cpu")
    with pytest.raises(RuntimeSettingError, match=r"^--device: 'cuda', but torch"):
        find_device("cuda", "--device")


def test_rank_and_work_folder_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = settle()
    assert (alone.rank, alone.world_size, alone.is_main_process) == (0, 1, True)
    assert alone.work == Path(".work")
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "WEAKMASK_WORK": "elsewhere"}.items():
        monkeypatch.setenv(name, value)
    one = settle()
    assert (one.rank, one.world_size, one.is_main_process) == (3, 4, False)
    assert one.work == Path("elsewhere")


def test_workers_default_to_the_cores_shared_by_the_ranks_of_a_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert settle(workers=0).workers == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert settle(workers=0).workers == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert settle(workers=0).workers == 1
    assert settle(workers=5).workers == 5


def test_many_arrays_go_to_the_device_and_back_in_one_copy() -> None:
    arrays = [np.arange(6.0).reshape(2, 3), np.zeros((0, 4)), np.array(7.0)]
    tensors = to_device(arrays, np.float32, torch.device("cpu"))
    assert [tensor.dtype for tensor in tensors] == [torch.float32] * 3
    for array, found in zip(arrays, to_numpy(tensors), strict=True):
        assert np.array_equal(array, found)
        assert array.shape == found.shape
