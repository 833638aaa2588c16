"""The machine a stage runs on, which no artifact depends on, and copies to and from its device."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError

if TYPE_CHECKING:  # loading torch takes two seconds, and half of the stages compute without it
    import torch
    from torch import Tensor


class RuntimeSettingError(UserError):
    """This machine lacks what a runtime parameter asks for; the message names the parameter."""


@dataclass(frozen=True)
class Runtime:
    """The resolved settings of section `runtime`, and the rank of this process, as set by torchrun.

    Attributes:
        device_setting: where networks compute, as find_device takes it.
        precision_setting: `auto`, or the name of the type that they compute in.
        workers: worker processes, 1 for none besides this one.
        batch: images per batch of the per-image engine.
        shard: images per shard.
        checkpoint: seconds between checkpoints.
        skip_bad: whether images that fail are left out.
        work: folder of unfinished work.
        rank: number of this process.
        world_size: number of processes that run the stage together.
    """

    device_setting: str
    precision_setting: str
    workers: int
    batch: int
    shard: int
    checkpoint: float
    skip_bad: bool
    work: Path
    rank: int
    world_size: int

    @cached_property
    def device(self) -> "torch.device":
        """Where networks compute; raises RuntimeSettingError on a machine without it."""
        return find_device(self.device_setting)

    @cached_property
    def precision(self) -> "torch.dtype":
        """What networks compute in; raises RuntimeSettingError where the device cannot."""
        return _precision(self.precision_setting, self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which networks compute in the chosen precision."""
        import torch

        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    @property
    def is_main_process(self) -> bool:
        """Whether this process prints, merges shards and writes the artifact."""
        return self.rank == 0


def resolve(*, device: str, precision: str, workers: int, work: str, **others: Any) -> Runtime:
    """Resolve section `runtime` for this machine; raise RuntimeSettingError where it cannot."""
    runtime = Runtime(
        device_setting=device,
        precision_setting=precision,
        workers=workers or _cores(),
        work=Path(os.environ.get("WEAKMASK_WORK") or work),
        rank=int(os.environ.get("RANK", "0")),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        **others,
    )
    if device not in ("auto", "cpu") or precision == "float16":  # which not every machine has
        _ = runtime.precision
    return runtime


def find_device(name: str, setting: str = "runtime.device") -> "torch.device":
    """Return the torch device of `auto` (CUDA, else CPU), `cpu`, `cuda` or `cuda:N`.

    Raises:
        RuntimeSettingError: this machine does not have it; the message names `setting`.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RuntimeSettingError(
            f"{setting}: {name!r} is not a torch device; use auto, cpu, cuda or cuda:N"
        ) from error
    if device.type not in ("cpu", "cuda"):  # the walk sums in float64, which Apple's mps lacks
        raise RuntimeSettingError(
            f"{setting}: {name!r} is not supported; use auto, cpu, cuda or cuda:N"
        )
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeSettingError(
                f"{setting}: {name!r}, but torch finds no GPU; use auto or cpu"
            )
        index = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise RuntimeSettingError(
                f"{setting}: no GPU {index}, the machine has {torch.cuda.device_count()}"
            )
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    return device


def _precision(name: str, device: "torch.device") -> "torch.dtype":
    import torch

    if name == "auto":  # emulated, bfloat16 is slower than float32
        gpu = device.type == "cuda"
        native = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    chosen: torch.dtype = getattr(torch, name)
    if chosen == torch.float16 and device.type == "cpu":
        raise RuntimeSettingError(
            "runtime.precision: float16 needs a GPU; use auto, float32 or bfloat16"
        )
    return chosen


def _cores() -> int:
    """Return the cores that this process may use; the ranks of a host share its cores."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def stack(images: Sequence[np.ndarray], device: "torch.device") -> "Tensor":
    """Return images uint8 [H,W,3] of one size as a uint8 tensor [B,3,H,W] on the device."""
    import torch

    return torch.from_numpy(np.stack(images)).to(device, non_blocking=True).permute(0, 3, 1, 2)


def to_device(arrays: Sequence[np.ndarray], kind: type, device: "torch.device") -> "list[Tensor]":
    """Return arrays of any shapes as tensors of the numpy type `kind`, in one asynchronous copy.

    A copy for each would have a GPU and the program wait for each other every time.
    """
    import torch

    values = np.concatenate([np.asarray(array, kind).ravel() for array in arrays])
    parts = (
        torch.from_numpy(values)
        .to(device, non_blocking=True)
        .split([array.size for array in arrays])
    )
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]


def to_numpy(tensors: "Sequence[Tensor]") -> list[np.ndarray]:
    """Return tensors of any shapes, on one device and of one type, as arrays, in one copy."""
    import torch

    values = torch.cat([tensor.flatten() for tensor in tensors]).cpu().numpy()
    parts = np.split(values, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
