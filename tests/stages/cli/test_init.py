"""weakmask init and check: what they write, say and refuse."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from torch.utils.data import TensorDataset

from pipeline.core.device import resolve
from pipeline.data.index import Index
from pipeline.params import parse, presets
from pipeline.params.lengths import LEAST_STEPS, steps
from pipeline.readers.build import build
from pipeline.readers.validation import check
from stages._command import read_parameters, train_stage
from stages.cli.estimate import expected_seconds, extrapolate
from stages.cli.main import main
from stages.dataset import dataset
from tests.support.repository import set_parameters
from tests.support.sources import annotation, coco_folder, own_folder

INIT = ("init", "--no-time", "--source")


def test_init_writes_checked_parameters_for_the_layout_found(
    runner: CliRunner, images: Path
) -> None:
    result = runner.invoke(main, [*INIT, "mine", "--preset", "folder"])
    assert result.exit_code == 0, result.output
    values = yaml.safe_load(Path("params.yaml").read_text())
    assert (values["dataset"]["source"], values["dataset"]["format"]) == ("mine", "folder")
    assert runner.invoke(main, [*INIT, "mine", "--preset", "folder"]).exit_code == 1
    assert runner.invoke(main, [*INIT, "mine", "--force"]).exit_code == 0
    text = Path("params.yaml").read_text()
    assert text.startswith("# Images of your own")
    assert text.count("\n") > 140, "the whole file, not the preset's differences"
    parse(yaml.safe_load(text))


def test_init_writes_what_it_found_so_that_the_stage_runs(runner: CliRunner) -> None:
    box = [[2, 1, 8, 1, 8, 6, 2, 6]]
    coco_folder(Path("coco"), [annotation(3, box), annotation(9, box, image=8)])
    result = runner.invoke(main, [*INIT, "coco"])
    assert "coco: COCO, annotations/instances_train2017.json with train2017/" in result.output
    checked = runner.invoke(main, ["check"])
    assert checked.exit_code == 0, checked.output
    assert "coco: coco, as params.yaml says\n" in checked.output
    assert (
        "coco: 2 images: 2 train; 2 with semantic masks; 2 with instance masks\n" in checked.output
    )
    assert "classes and their images: cat 1, dog 1\n" in checked.output
    staged = runner.invoke(dataset, [])
    assert staged.exit_code == 0, staged.output
    assert list(Index.load(Path("data/dataset"))) == ["000000000007", "000000000008"]


def test_check_takes_its_own_source_as_params_yaml_says(runner: CliRunner, images: Path) -> None:
    runner.invoke(main, [*INIT, "mine"])
    set_parameters(Path(), {"dataset.classes": ["lynx"]})
    for arguments in (["check"], ["check", "mine"]):
        result = runner.invoke(main, arguments)
        assert result.exit_code == 1
        assert "'lynx' is not a class of the source; valid are cat, dog" in result.output
    images.rename("others")
    assert runner.invoke(main, ["check", "others"]).exit_code == 0


def test_check_gives_one_line_per_kind_of_problem(runner: CliRunner, images: Path) -> None:
    own_folder(images, ["a,cat", "b,dog", *(f"p{k}," for k in range(20))])
    result = runner.invoke(main, ["check", "mine"])
    line, *rare = [line for line in result.output.splitlines() if line.startswith("warning")]
    assert all("has one image" in other for other in rare)
    assert "'p0' has no tags; ignore this if" in line
    assert "20 like this, also at mine/labels.csv:5 and mine/labels.csv:6" in line
    every = runner.invoke(main, ["check", "mine", "--all"]).output
    assert every.count("warning: ") == 22
    for output in (result.output, every):
        assert "mine: 0 errors, 22 warnings" in output


def test_a_source_that_git_does_not_know_is_written_absolute(
    runner: CliRunner, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC copies what Git or DVC tracks for --queue and --temp; the copies lack the rest."""

    def written(source: str) -> str:
        assert runner.invoke(main, [*INIT, source, "--force"]).exit_code == 0
        return yaml.safe_load(Path("params.yaml").read_text())["dataset"]["source"]

    subprocess.run(["git", "init", "-q"], check=True)
    assert written("mine") == str(images)
    subprocess.run(["git", "add", "mine"], check=True)
    assert written("mine") == "mine"
    (images.parent / "inside").mkdir()
    monkeypatch.chdir(images.parent / "inside")
    assert written("../mine") == str(images), "outside of the project"


def test_queue_refuses_a_source_that_the_copies_of_dvc_lack(
    runner: CliRunner, images: Path
) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    runner.invoke(main, [*INIT, "mine"])
    set_parameters(Path(), {"dataset.source": "mine"})
    result = runner.invoke(main, ["compare", "--queue", "-S", "base.seed=0,1"])
    assert result.exit_code == 1
    assert "tracks dataset.source mine, so the copies" in result.output
    assert f"write {images} there, or run `dvc add mine`" in result.output


def test_init_scenes_needs_no_source_and_writes_the_preset(runner: CliRunner) -> None:
    result = runner.invoke(main, ["init", "--preset", "scenes", "-o", "mine.yaml"])
    assert result.output == "wrote mine.yaml; next: weakmask run\n"
    assert Path("mine.yaml").read_text() == presets.text("scenes")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "voc13", "--source", "mine"], "voc12"),
        (["--preset", "folder"], "needs the folder"),
        (["--preset", "folder", "--source", "nowhere"], "nowhere"),
        (["--source", "."], "--source: . contains this project; put the images into a folder"),
        (["--source", "mine", "-o", "no/p.yaml"], "-o no/p.yaml: no is not a folder; create it"),
    ],
)
def test_init_refuses_what_cannot_work(
    runner: CliRunner, images: Path, arguments: list[str], message: str
) -> None:
    result = runner.invoke(main, ["init", *arguments])
    assert result.exit_code == 1
    assert message in result.output
    assert not Path("params.yaml").exists()


def test_help_of_init_names_all_presets(runner: CliRunner) -> None:
    words = re.findall(r"[\w-]+", runner.invoke(main, ["init", "--help"]).output)
    assert set(presets.names()) <= set(words)


def test_suggested_commands_can_be_pasted(runner: CliRunner) -> None:
    coco_folder(Path("my photos"), [annotation(3, [[2, 1, 8, 1, 8, 6]])])
    output = runner.invoke(main, ["init", "--source", "my photos", "--preset", "coco14"]).output
    suggested = output.rpartition("next: ")[2].rpartition(", then")[0]
    assert shlex.split(suggested) == ["weakmask", "check", "my photos"]


def test_a_small_source_gets_longer_trainings_and_enough_to_score(
    runner: CliRunner, tmp_path: Path
) -> None:
    own_folder(tmp_path / "mine", [f"p{k:02d},{'cat' if k % 2 else 'dog'}" for k in range(30)])
    result = runner.invoke(main, [*INIT, "mine", "--preset", "folder"])
    assert result.exit_code == 0, result.output
    parameters = parse(yaml.safe_load(Path("params.yaml").read_text()))
    index = build("folder", tmp_path / "mine", tmp_path / "index", val=parameters.dataset.val)
    train, val = (len(index.select(split)) for split in ("train", "val"))
    assert val >= 6
    assert f"mine: 30 images: {train} train, {val} val; none with semantic masks" in result.output
    for stage, least in LEAST_STEPS.items():
        assert steps(parameters, stage, train) >= least
        epochs = getattr(parameters, stage).epochs
        assert f"{stage}.epochs: {epochs:.0f}, for {least} training steps" in result.output
        assert steps(parameters, stage, train - 1) < least + getattr(parameters, stage).batch
    assert "preset folder: method s2c, the best on photographs without" in result.output
    checked = runner.invoke(main, ["check"]).output
    assert "training steps" not in checked


def test_a_source_with_its_own_splits_keeps_them(runner: CliRunner, tmp_path: Path) -> None:
    rows = [f"p{k:02d},cat,{'val' if k > 7 else 'train'}" for k in range(10)]
    own_folder(tmp_path / "mine", rows, "image,classes,split")
    output = runner.invoke(main, [*INIT, "mine", "--preset", "folder"]).output
    assert "mine: 10 images: 8 train, 2 val;" in output
    assert "dataset.val" not in output


def test_check_and_stage_warn_of_a_training_that_is_too_short(
    runner: CliRunner, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner.invoke(main, [*INIT, "mine", "--preset", "folder"])
    set_parameters(Path(), {"dataset.val": 0, "irnet.epochs": 3, "irnet.batch": 2})
    what, do = "only 3 training steps", "raise irnet.epochs to about 100"
    assert f"warning: params.yaml: {what}; {do}" in runner.invoke(main, ["check"]).output
    parameters = read_parameters(Path("params.yaml"))
    runtime = resolve(**parameters.runtime.model_dump())
    network = torch.nn.Linear(1, 1)
    samples: Any = TensorDataset(torch.zeros(2))
    train_stage(
        "irnet",
        network,
        samples,
        lambda network, batch, state: {"loss": network(batch[0][:, None]).sum()},
        parameters,
        [],
        runtime,
        new=[],
    )
    assert f"irnet: {what}; {do}" in caplog.messages


@pytest.mark.slow
def test_the_time_of_a_run_is_measured_on_a_few_images(runner: CliRunner, tmp_path: Path) -> None:
    rows = [f"p{k:02d},{'cat' if k % 2 else 'dog'}" for k in range(12)]
    survey = check("folder", own_folder(tmp_path / "mine", rows), val=0.3)
    values = presets.load("folder")
    values["dataset"]["source"] = str(tmp_path / "mine")
    for stage in LEAST_STEPS:
        values[stage] |= {"crop": 64, "batch": 2}
    values["runtime"]["workers"] = 1
    values["irnet"]["radius"], values["classifier"]["method"] = 4, "cam"
    seconds = expected_seconds(parse(values), survey)
    assert set(LEAST_STEPS) | {"segments", "cams", "seeds", "walk", "predictions"} <= set(seconds)


def test_times_of_a_few_images_are_extrapolated() -> None:
    took = [
        {"cams": 4.0, "semantic": 3.0, "walk": 2.0},
        {"cams": 5.0, "semantic": 3.5, "walk": 1.9},
    ]
    expected = extrapolate(took, {"cams": 100, "semantic": 60, "walk": 100})
    assert expected == {"cams": 3 + 50, "semantic": 3 + 30, "walk": 3}
