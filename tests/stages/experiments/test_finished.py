"""Variants of experiments, code in which they differ, and statistics by hand-worked numbers."""

from typing import Any

import pytest

from stages.experiments.finished import (
    Experiment,
    Scores,
    cell,
    differing_code,
    paired,
    significant,
    table,
    variants,
)

KEY = ("labels", "miou")


def experiment(name: str, seed: int, code: str = "a", **changed: Any) -> Experiment:
    """An experiment; in `changed`, `__` stands for the dot of a parameter's name."""
    values = {"classifier.method": "cam", "base.seed": seed}
    values |= {key.replace("__", "."): value for key, value in changed.items()}
    return Experiment(name, values, {}, [], {"pipeline/core": code})


def test_variants_are_methods_where_nothing_else_differs() -> None:
    rows = [experiment("a", 0), experiment("b", 1), experiment("c", 0)]
    rows.append(experiment("d", 0, classifier__method="seenet"))
    found = variants(rows)
    assert list(found) == ["cam", "seenet"]
    assert {seed: one.name for seed, one in found["cam"].items()} == {0: "c", 1: "b"}, "the newest"


def test_variants_name_the_parameters_that_differ() -> None:
    rows = [experiment(str(n), 0, same=1, labels__background=n / 10) for n in (4, 3)]
    rows.append(experiment("without", 0, same=1))
    assert list(variants(rows)) == [
        "cam labels.background=0.3",
        "cam labels.background=0.4",
        "cam labels.background=null",
    ]
    assert variants([]) == {}


def test_code_that_differs_is_named() -> None:
    rows = [experiment("a", 0), experiment("b", 1)]
    assert differing_code(rows) == []
    assert differing_code([*rows, experiment("c", 2, code="b")]) == ["pipeline/core"]


def seeds(*values: float) -> dict[int, Scores]:
    return {seed: {KEY: value} for seed, value in enumerate(values)}


def test_differences_are_paired_by_seed() -> None:
    other: dict[int, Scores] = {0: {KEY: 0.6}, 1: {KEY: 0.9}, 2: {}, 3: {KEY: 0.1}}
    assert paired(seeds(0.5, 0.7, 0.6), other, KEY) == pytest.approx([0.1, 0.2])


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.3], False),
        ([0.3, 0.3], True),
        ([0.0, 0.0], False),
        ([0.10, 0.12], False),  # t = 11 with 1 degree of freedom: p = 0.058
        ([-0.10, -0.11], True),  # t = 21: p = 0.030
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


def test_table_of_two_methods_and_three_seeds() -> None:
    scores = {"cam": seeds(0.5, 0.6, 0.7), "seenet": seeds(0.55, 0.67, 0.76)}
    scores["cam"][0] = {KEY: 0.5, ("labels", "AP50"): 0.25}
    assert table(scores) == [
        "        seeds       labels    labels, AP50",
        "cam         3  60.0 ± 10.0        25.0 (1)",
        "seenet      3  66.0 ± 10.5               -",
        "",
        "minus cam, on the same seeds:",
        "seenet      3   +6.0 ± 1.0 *             -",
        "",
        "mIoU and AP50 in percent; mean ± standard deviation over the seeds",
        "* p < 0.05 in a paired t-test over the seeds",
    ]


def test_table_of_one_seed_claims_nothing() -> None:
    text = "\n".join(table({"cam": seeds(0.5), "seenet": seeds(0.9)}))
    assert "+40.0" in text
    assert "±" not in text
    assert "*" not in text
    assert "one seed cannot tell a difference from chance" in text
    assert table({"cam": {0: {}}}) == ["no scores"]
