"""The processes that train a network together, started by torchrun, and the precision they compute
in.

Ranks share each batch as DistributedDataParallel does. On GPUs, batch normalization takes its
statistics over all ranks. On CPUs each rank normalizes its own share of the batch, so networks with
batch normalization train differently there on another number of ranks; so do those with dropout.
"""

import atexit
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from pipeline.core.device import Runtime
from pipeline.errors import UserError


class RankError(UserError):
    """The ranks cannot work together; the message says why."""


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """The ranks of a training."""

    world_size: int = 1

    @classmethod
    def connect(cls, runtime: Runtime) -> "DistributedContext":
        """Join the other ranks; the process group stays for what the stage does after training.

        Raises:
            RankError: the environment does not say where the other ranks are.
        """
        if runtime.world_size > 1 and not distributed.is_initialized():
            if "MASTER_ADDR" not in os.environ:
                raise RankError(
                    f"WORLD_SIZE is {runtime.world_size}, but MASTER_ADDR is not set; start the "
                    "ranks with torchrun"
                )
            distributed.init_process_group("nccl" if runtime.device.type == "cuda" else "gloo")
            atexit.register(distributed.destroy_process_group)
        return cls(runtime.world_size)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the ranks, for normalizers that span the whole batch.

        DDP averages gradients, so counts are averaged too.
        """
        if self.world_size == 1:
            return values
        total = values.float().clone()
        distributed.all_reduce(total)
        return total / self.world_size

    def agree(self, number: int, device: torch.device) -> bool:
        """Return whether all ranks hold the same number."""
        bounds = torch.tensor([number, -number], device=device)
        if self.world_size > 1:
            distributed.all_reduce(bounds, distributed.ReduceOp.MAX)
        return int(bounds[0]) == -int(bounds[1])


class MixedPrecision(nn.Module):
    """A network that computes in the runtime's precision and returns float32."""

    def __init__(self, network: nn.Module, runtime: Runtime) -> None:
        super().__init__()
        self.network, self.runtime = network, runtime

    def forward(self, *inputs: Any) -> Any:
        """Return the outputs of the network, each floating point tensor in float32."""
        with self.runtime.autocast():
            outputs = self.network(*inputs)
        return map_tensors(lambda t: t.float() if t.is_floating_point() else t, outputs)


def parallel(network: nn.Module, runtime: Runtime) -> nn.Module:
    """Return the network in the runtime's precision, wrapped to train on all ranks."""
    model = network
    if runtime.precision != torch.float32:
        model = MixedPrecision(network, runtime)
    if runtime.world_size > 1:
        cuda = runtime.device.type == "cuda"
        if cuda:  # timm's, as torch's drops the activation that timm joins to the normalization
            from timm.layers import convert_sync_batchnorm  # loading it takes a second

            convert_sync_batchnorm(network)
        devices = [runtime.device] if cuda else None
        model = nn.parallel.DistributedDataParallel(model, devices, find_unused_parameters=True)
    return model


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to the tensors within mappings, lists and (named) tuples."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(function, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [map_tensors(function, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
