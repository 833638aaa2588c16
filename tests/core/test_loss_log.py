"""The loss log: means over all steps, delayed reads, resuming, and losses that are not finite."""

import pytest
import torch

from pipeline.core.loss_log import DELAY, LossError, LossLog

NAMES = ("loss", "edge")


def filled(losses: LossLog, steps: range) -> LossLog:
    for step in steps:
        losses.add(step, 0.1, NAMES, torch.tensor([float(step), 2.0 * step]))
    return losses


def test_rows_are_means_over_stretches_of_all_steps() -> None:
    losses = LossLog("irnet", 2)
    losses.flush()
    assert losses.csv() == b""
    filled(losses, range(26))
    losses.flush()
    assert [[*row.values()] for row in losses.rows] == [
        [2 * n + 2, 0.1, 2 * n + 0.5, 4 * n + 1] for n in range(13)
    ]
    assert losses.csv().splitlines()[:2] == [b"step,lr,loss,edge", b"2,0.1,0.5,1"]


def test_terms_are_read_from_the_device_a_few_steps_at_a_time() -> None:
    losses = filled(LossLog("irnet", 1), range(DELAY - 1))
    assert losses.last == {}
    losses.add(DELAY - 1, 0.1, ("loss",), torch.tensor([7.0]))
    assert losses.last == {"loss": 7}
    assert len(losses.rows) == DELAY


def test_a_loss_log_resumes() -> None:
    first = filled(LossLog("irnet", 3), range(4))
    first.flush()
    second = LossLog("irnet", 3)
    second.restore(first.state())
    filled(second, range(4, 9)).flush()
    whole = filled(LossLog("irnet", 3), range(9))
    whole.flush()
    assert second.csv() == whole.csv()
    with pytest.raises(KeyError):
        second.restore({"rows": []})


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_loss_that_is_not_finite_is_named_with_its_step(value: str) -> None:
    losses = filled(LossLog("irnet", 1), range(2))
    losses.add(2, 0.1, NAMES, torch.tensor([1.0, float(value)]))
    with pytest.raises(
        LossError, match=rf"irnet: loss not finite at step 2: loss 1, edge {value}; lower irnet\."
    ):
        losses.flush()
    assert len(losses.rows) == 2
