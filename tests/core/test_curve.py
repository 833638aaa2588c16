"""The curve of a training: nothing is lost on the way from the device, and
bad losses are told.
"""

import csv

import pytest
import torch

from pipeline.core.trainer import Curve, LossError
from tests.support.fake_cuda import fake_cuda

NAMES = ("loss", "edge")


def filled(curve: Curve, steps: range) -> Curve:
    for step in steps:
        curve.add(step, 0.1, NAMES, torch.tensor([float(step), 2.0 * step]))
    return curve


def rows(curve: Curve) -> list[dict[str, float]]:
    text = curve.csv().decode().splitlines()
    return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(text)]


def test_rows_are_means_over_stretches_of_all_steps() -> None:
    curve = filled(Curve("irnet", 2), range(6))
    curve.settle()
    assert rows(curve) == [
        {"step": 2 * n + 2, "lr": 0.1, "loss": 2 * n + 0.5, "edge": 4 * n + 1} for n in range(3)
    ]


def test_no_steps_no_rows() -> None:
    curve = Curve("irnet", 1)
    curve.settle()
    assert curve.csv() == b""


def test_the_last_terms_are_those_of_the_step_before_until_all_has_settled() -> None:
    curve = filled(Curve("irnet", 1), range(3))
    assert curve.last == {"loss": 1, "edge": 2}
    curve.settle()
    assert curve.last == {"loss": 2, "edge": 4}


def test_a_curve_that_was_kept_goes_on() -> None:
    first = filled(Curve("irnet", 3), range(4))
    first.settle()
    second = Curve("irnet", 3)
    second.restore(first.state())
    filled(second, range(4, 9)).settle()
    whole = filled(Curve("irnet", 3), range(9))
    whole.settle()
    assert second.csv() == whole.csv()


def test_what_is_no_curve_is_refused() -> None:
    with pytest.raises(KeyError):
        Curve("irnet", 3).restore({"rows": []})


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_loss_that_is_not_finite_is_told_with_its_step(value: str) -> None:
    curve = filled(Curve("irnet", 1), range(2))
    curve.add(2, 0.1, NAMES, torch.tensor([1.0, float(value)]))
    with pytest.raises(
        LossError, match=rf"irnet: loss not finite at step 2: loss 1, edge {value}; lower irnet\."
    ):
        curve.settle()
    assert len(curve.rows) == 2


def test_losses_arrive_from_a_gpu() -> None:
    with fake_cuda() as device:
        curve = Curve("irnet", 1)
        for step in range(5):
            curve.add(step, 0.1, NAMES, torch.tensor([1.0, step]).to(device, non_blocking=True))
        curve.settle()
    assert [row["edge"] for row in curve.rows] == [0, 1, 2, 3, 4]
