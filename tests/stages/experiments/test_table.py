"""Statistics and tables by hand-worked numbers."""

import pytest

from stages.experiments.table import Score, as_csv, cell, paired, significant, table


def test_differences_are_paired_by_seed() -> None:
    found = paired({0: 0.5, 1: 0.7, 2: 0.6}, {0: 0.6, 1: 0.9, 3: 0.1})
    assert found == pytest.approx([0.1, 0.2])


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([], False),
        ([0.3], False),
        ([0.3, 0.3], True),
        ([0.0, 0.0], False),
        ([0.10, 0.12], False),  # t = 11 with 1 degree of freedom: p = 0.058
        ([0.10, 0.11], True),  # t = 21: p = 0.030
        ([-0.10, -0.11, -0.12], True),
    ],
)
def test_significance_is_that_of_a_t_test(differences: list[float], expected: bool) -> None:
    assert significant(differences) is expected


def test_cells_hold_mean_and_standard_deviation() -> None:
    assert cell([], 3).strip() == "-"
    assert cell([0.385], 1).strip() == "38.5"
    assert cell([0.38, 0.39], 2).strip() == "38.5 ± 0.7"
    assert cell([0.38, 0.39], 3).strip() == "38.5 ± 0.7 (2)"
    assert cell([0.01, 0.03, 0.02], 3, sign="+", star=True) == "+2.0 ± 1.0 *"


def numbers(variant: str, *values: float) -> list[Score]:
    return [Score(variant, seed, "labels", "miou", value) for seed, value in enumerate(values)]


def test_table_of_two_methods_and_three_seeds() -> None:
    scores = [*numbers("cam", 0.5, 0.6, 0.7), *numbers("seenet", 0.55, 0.67, 0.76)]
    scores.append(Score("cam", 0, "labels", "AP50", 0.25))
    assert table(scores) == [
        "        seeds  pseudo-labels    instance AP50",
        "cam         3    60.0 ± 10.0         25.0 (1)",
        "seenet      3    66.0 ± 10.5                -",
        "",
        "minus cam, on the same seeds:",
        "seenet      3     +6.0 ± 1.0 *              -",
        "",
        "mIoU and AP50 in percent; mean ± standard deviation over the seeds",
        "* p < 0.05 in a paired t-test over the seeds",
    ]


def test_table_of_one_seed_claims_nothing() -> None:
    text = "\n".join(table([*numbers("cam", 0.5), *numbers("seenet", 0.9)]))
    assert "+40.0" in text
    assert "±" not in text
    assert "*" not in text
    assert "one seed cannot tell a difference from chance" in text
    assert table([]) == ["no scores"]


def test_csv_holds_every_number() -> None:
    assert as_csv(numbers("cam", 0.5, 0.61234)).splitlines() == [
        "variant,seed,step,score,value",
        "cam,0,labels,miou,0.5",
        "cam,1,labels,miou,0.61234",
    ]
