"""Variants of experiments, and code in which they differ."""

from typing import Any

from stages.experiments.finished import Experiment, differing_code, variants


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
