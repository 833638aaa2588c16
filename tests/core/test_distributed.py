"""Ranks that train together, and the precision that networks compute in."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from pipeline.core.distributed import parallel
from tests.support.runtimes import runtime


class Pair(NamedTuple):
    """What networks return."""

    maps: Tensor
    rest: Any


class Net(nn.Module):
    """A network that returns tensors in all that holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, inputs: Tensor) -> Pair:
        out = self.layer(inputs)
        return Pair(out, [{"same": out, "count": torch.tensor(3)}, "text"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_ends_with_the_network(tmp_path: Path, dtype: torch.dtype) -> None:
    network = Net()
    machine = runtime(tmp_path)
    vars(machine)["precision"] = dtype  # which the settings refuse on a CPU for float16
    found = parallel(network, machine)(torch.full((1, 2), 1 / 3))
    exact = network(torch.full((1, 2), 1 / 3))
    assert isinstance(found, Pair)
    assert found.maps.dtype == found.rest[0]["same"].dtype == torch.float32
    assert found.rest[0]["count"].dtype == torch.int64
    assert found.rest[1] == "text"
    assert not torch.equal(found.maps, exact.maps)
    assert torch.allclose(found.maps, exact.maps, atol=0.02)
