"""Statistics and tables by hand-worked numbers."""

import csv
import io
import math

import pytest

from stages.experiments.table import (
    Estimate,
    Score,
    as_csv,
    beyond_chance,
    cell,
    chance,
    estimate,
    paired,
    table,
)


def test_mean_and_standard_error() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert found is not None
    assert (found.mean, found.n) == (2, 3)
    assert found.error == pytest.approx(1 / math.sqrt(3))
    assert estimate([0.4]) == Estimate(0.4, None, 1)
    assert estimate([]) is None


def test_differences_are_of_the_same_seed() -> None:
    found = paired({0: 0.5, 1: 0.7, 2: 0.6}, {0: 0.6, 1: 0.9, 3: 0.1})
    assert found is not None
    assert (found.mean, found.n) == (pytest.approx(0.15), 2)
    assert found.error == pytest.approx(0.05)  # 0.1 and 0.2: s = 0.1 / sqrt(2), over sqrt(2)
    assert paired({0: 0.5}, {1: 0.5}) is None


@pytest.mark.parametrize(
    ("mean", "error", "beyond"),
    [
        (0.15, 0.05, True),
        (-0.15, 0.05, True),
        (0.1, 0.05, False),
        (0.3, None, False),
        (0.0, 0.0, False),
    ],
)
def test_what_is_beyond_chance(mean: float, error: float | None, beyond: bool) -> None:
    assert beyond_chance(Estimate(mean, error, 1 if error is None else 3)) is beyond


def test_chance_by_students_distribution() -> None:
    assert chance(2) == pytest.approx(1 - 2 * math.atan(2) / math.pi)
    assert chance(3) == pytest.approx(1 - 2 / math.sqrt(6))
    assert chance(100000) == pytest.approx(math.erfc(math.sqrt(2)), abs=1e-5)


def test_cells() -> None:
    assert cell(None, 3).strip() == "-"
    assert cell(Estimate(0.385, None, 1), 1).strip() == "38.5"
    assert cell(Estimate(0.385, 0.006, 3), 3).strip() == "38.5 ± 1.2"
    assert cell(Estimate(0.385, 0.006, 2), 3).strip() == "38.5 ± 1.2 (2)"
    assert cell(Estimate(0.021, 0.004, 3), 3, sign="+", mark=True) == "+2.1 ± 0.8 *"


def numbers(method: str, *values: float) -> list[Score]:
    return [Score(method, seed, "labels", "miou", value) for seed, value in enumerate(values)]


def test_a_table_of_two_methods_and_three_seeds() -> None:
    scores = [*numbers("cam", 0.5, 0.6, 0.7), *numbers("seenet", 0.55, 0.67, 0.76)]
    scores.append(Score("cam", 0, "labels", "AP50", 0.25))
    assert table(scores, ["cam", "seenet"], ["labels"]) == [
        "        seeds  pseudo-labels    instance AP50",
        "cam         3    60.0 ± 11.5         25.0 (1)",
        "seenet      3    66.0 ± 12.2                -",
        "",
        "minus cam, on the same seeds:",
        "seenet      3     +6.0 ± 1.2 *              -",
        "",
        "mIoU and AP50 in percent; mean ± 2 standard errors of the mean over the seeds",
        "* beyond 2 standard errors; with 3 pairs chance alone reaches that in 18 % of comparisons",
    ]


def test_a_table_of_one_seed_claims_nothing() -> None:
    lines = table([*numbers("cam", 0.5), *numbers("seenet", 0.9)], ["cam", "seenet"], ["labels"])
    text = "\n".join(lines)
    assert "+40.0" in text
    assert "±" not in text
    assert "*" not in text
    assert "nothing tells these differences from chance" in text


def test_a_table_without_scores_says_so() -> None:
    assert table([], ["cam", "seenet"], ["cams"])[-1] == "no scores"


def test_csv_holds_every_number() -> None:
    rows = list(csv.reader(io.StringIO(as_csv(numbers("cam", 0.5, 0.61234)))))
    assert rows == [
        ["method", "seed", "step", "score", "value"],
        ["cam", "0", "labels", "miou", "0.5"],
        ["cam", "1", "labels", "miou", "0.61234"],
    ]
