"""What is asked: choices, names and parameters of the runs."""

import pytest
import yaml

from pipeline.errors import UserError
from stages.experiments.plan import METHODS, choose, experiment_name, override, parse_name, plan
from stages.experiments.table import STEPS
from tests.support.repository import ROOT

PARAMETERS = yaml.safe_load((ROOT / "params.yaml").read_text())


def test_lists_are_split_once_each_and_default_to_all() -> None:
    assert choose("--methods", ["cam,seenet", "cam"], METHODS) == ["cam", "seenet"]
    assert choose("--methods", [], METHODS) == list(METHODS)


def test_a_wrong_choice_lists_the_valid_ones() -> None:
    with pytest.raises(
        UserError, match=r"--steps: there is no 'cam'; choose from cams, labels, predictions"
    ):
        choose("--steps", ["cam"], STEPS)


@pytest.mark.parametrize("prefix", ["", "low", "cam-seed1"])
def test_names_are_read_back(prefix: str) -> None:
    for method in METHODS:
        assert parse_name(prefix, experiment_name(prefix, method, 12)) == (method, 12)


@pytest.mark.parametrize(
    "name", ["low-cam-seed1", "cam-seed", "cam-seed01", "other-seed1", "cam-seed1-b"]
)
def test_other_names_are_no_ours(name: str) -> None:
    assert parse_name("", name) is None


def test_runs_go_seed_by_seed_with_their_parameters() -> None:
    runs = plan(
        PARAMETERS, ["cam", "seenet"], [3, 5, 3], overrides=["labels.background=0.4"], prefix="low"
    )
    assert [item.name for item in runs] == [
        "low-cam-seed3",
        "low-seenet-seed3",
        "low-cam-seed5",
        "low-seenet-seed5",
    ]
    last = runs[-1]
    assert last.overrides == ("labels.background=0.4", "classifier.method=seenet", "base.seed=5")
    assert last.parameters["classifier"]["method"] == "seenet"
    assert (last.parameters["base"]["seed"], last.parameters["labels"]["background"]) == (5, 0.4)
    assert yaml.safe_load((ROOT / "params.yaml").read_text()) == PARAMETERS, (
        "what was given is left alone"
    )


def test_overrides_are_read_as_dvc_reads_them() -> None:
    assert override(PARAMETERS, "cams.scales=[0.5,1]")["cams"]["scales"] == [0.5, 1]
    assert (
        override(PARAMETERS, "classifier.optimizer.lr=1e-3")["classifier"]["optimizer"]["lr"]
        == 0.001
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels.background", "section.name=value"),
        ("+labels.other=1", "section.name=value"),
        ("nowhere.background=1", "no section nowhere"),
        ("labels.background.deep=1", "no section labels.background"),
        ("labels.background=0.1,0.2", "must be one value"),
        ("classifier.method=cam", "--methods says that"),
        ("base.seed=3", "--seed says that"),
        ("labels.nothing=1", "labels.nothing"),
        ("labels.background=much", "labels.background"),
    ],
)
def test_wrong_overrides_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        plan(PARAMETERS, ["cam"], [0], overrides=[text])
