"""The GPU that is played on the CPU: where tensors are, what may not meet, what is waited for, and
what a table makes of it.
"""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.standin import DEVICE, MixedDevicesError, StandIn
from benchmarks.waits import Asked, row

CPU = torch.device("cpu")


@pytest.fixture
def device() -> StandIn:
    return StandIn()


def test_tensors_are_where_they_are_sent_and_so_is_what_is_made_of_them(device: StandIn) -> None:
    with device:
        there = torch.ones(3, 4).to("cuda")
        made = (
            there,
            there * 2,
            there[1:],
            torch.zeros_like(there),
            there.new_zeros(2),
            there.new_tensor([1]),
        )
        created = (
            torch.zeros(2, device="cuda"),
            torch.tensor([1.0], device=DEVICE),
            torch.ones(2).cuda(),
        )
        here = torch.ones(3), there.cpu(), there.to("cpu"), torch.from_numpy(there.cpu().numpy())
        assert {tensor.device for tensor in (*made, *created)} == {DEVICE}
        assert all(tensor.is_cuda for tensor in made)
        assert {tensor.device for tensor in here} == {CPU}
        assert torch.ones(2, device="meta").is_meta
    assert torch.ones(1).device == CPU
    assert not torch.cuda.is_available()


def test_a_copy_shares_nothing_with_its_origin(device: StandIn) -> None:
    with device:
        here = torch.zeros(3)
        there = here.to(DEVICE)
        there += 1
        assert here.tolist() == [0, 0, 0]
        assert there.to(torch.float64).device == DEVICE
        assert here.to(there).device == DEVICE
        assert here.to(torch.float64).device == CPU


@pytest.mark.parametrize(
    "meet",
    [
        lambda there, here: there + here,
        lambda there, here: torch.cat([there, here]),
        lambda there, here: there.scatter_add_(0, here.long(), there),
        lambda there, here: here[there.long()],
        lambda there, here: there.__setitem__(torch.tensor([0, 1]), here[:2]),
        lambda there, here: there.numpy(),
        lambda there, here: nn.Linear(3, 2)(there),
    ],
)
def test_tensors_of_two_devices_may_not_meet(
    device: StandIn, meet: Callable[[Tensor, Tensor], object]
) -> None:
    with device, pytest.raises(MixedDevicesError):
        meet(torch.ones(3).to(DEVICE), torch.ones(3))


def test_what_pytorch_allows_is_allowed(device: StandIn) -> None:
    with device:
        there, here = torch.ones(3).to(DEVICE), torch.tensor([2, 0])
        assert (there * torch.tensor(2.0)).device == DEVICE
        assert there[here].device == DEVICE
        there.copy_(here.float()[:1])
        there[:2] = torch.ones(2)
        assert there.tolist() == [1, 1, 2]


def test_what_is_waited_for_is_counted_with_its_line(device: StandIn) -> None:
    with device:
        there = torch.ones(3).to(DEVICE, non_blocking=True)
        float(there.sum())
        there.cpu()
        there.tolist()
        there[there > 0]
        there.nonzero()
        if (there > 0).all():
            torch.zeros(3).copy_(there)
        torch.ones(3).to(DEVICE)
        torch.tensor([1.0], device=DEVICE)
        there[torch.tensor([0, 2])]
        torch.ones(3).tolist()
        torch.ones(3).sum().item()
    assert device.waits.total() == 10
    assert all(place.startswith("tests/test_standin.py:") for _, place in device.waits)
    assert len({place for _, place in device.waits}) == 10


def test_a_copy_that_is_not_waited_for_has_not_arrived_before_its_event(device: StandIn) -> None:
    with device:
        there = torch.arange(3.0, device=DEVICE)
        here, arrival = there.to("cpu", non_blocking=True), torch.cuda.Event()
        arrival.record()
        later = (there + 1).to("cpu", non_blocking=True)
        assert here.isnan().all()
        arrival.synchronize()
        assert here.tolist() == [0, 1, 2]
        assert later.isnan().all()
        assert not device.waits


def test_a_training_step_is_the_same_there(device: StandIn) -> None:
    def losses(where: torch.device) -> list[float]:
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(64, 2)
        )
        network.to(where)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
        found = []
        for _ in range(3):
            loss = network(torch.arange(216.0).view(2, 3, 6, 6).to(where)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    expected = losses(CPU)
    with device:
        found = losses(DEVICE)
    assert found == pytest.approx(expected, rel=1e-4)
    assert sum(number for (what, _), number in device.waits.items() if "copy" not in what) == 3
    assert device.operators["convolution_backward"] == 3


def test_views_are_no_operators(device: StandIn) -> None:
    with device:
        there = torch.ones(3, 4).to(DEVICE)
        before = device.operators.total()
        there.view(4, 3).transpose(0, 1)[1:].unsqueeze(0)
        assert device.operators.total() == before
        there.add_(1).mul(2)
        assert device.operators.total() == before + 2


def test_a_row_counts_the_largest_batches_without_the_first() -> None:
    waits = Counter({("nonzero", "a.py:1"): 3, ("tolist", "b.py:2"): 1})
    asked = [Asked(8, 900, waits), Asked(8, 80, waits), Asked(8, 160, waits), Asked(2, 1000, waits)]
    assert (
        row("cams", asked)
        == "| cams | 8 | 120 | 15 | 4 | 3 nonzero in a.py:1; 1 tolist in b.py:2 |"
    )
