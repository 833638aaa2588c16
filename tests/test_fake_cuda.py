"""The fake CUDA device refuses what a real one refuses, and computes what the CPU computes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.support.fake_cuda import CPU, CUDA, fake_cuda


def test_tensors_lie_where_they_are_sent() -> None:
    with fake_cuda() as device:
        sent = torch.ones(3, 4).to(device)
        derived = (sent * 2, sent[1:], torch.zeros_like(sent), sent.new_tensor([1]))
        created = (torch.zeros(2, device="cuda"), torch.tensor([1.0], device=device))
        back = sent.cpu(), sent.to("cpu"), torch.from_numpy(sent.cpu().numpy())
        assert {tensor.device for tensor in (sent, *derived, *created)} == {CUDA}
        assert {tensor.device for tensor in back} == {CPU}
        sent += 1
        assert back[0].eq(1).all()


@pytest.mark.parametrize(
    "meet",
    [
        lambda there, here: there + here,
        lambda there, here: torch.cat([there, here]),
        lambda there, here: here[there.long()],
        lambda there, here: there.numpy(),
        lambda there, here: nn.Linear(3, 2)(there),
    ],
)
def test_tensors_of_two_devices_must_not_meet(meet: Callable[[Tensor, Tensor], object]) -> None:
    with (
        fake_cuda() as device,
        pytest.raises((RuntimeError, TypeError), match=r"two devices|numpy"),
    ):
        meet(torch.ones(3).to(device), torch.ones(3))


def test_a_copy_that_was_not_awaited_has_not_arrived() -> None:
    with fake_cuda() as device:
        values, event = torch.arange(3.0, device=device), torch.cuda.Event()
        first = values.to("cpu", non_blocking=True)
        event.record()
        second = (values + 1).to("cpu", non_blocking=True)
        assert first.isnan().all()
        event.synchronize()
        assert first.tolist() == [0, 1, 2]
        assert second.isnan().all()
        torch.cuda.synchronize()
        assert second.tolist() == [1, 2, 3]
