"""The command line: what it writes, prints and refuses."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from pipeline.core.artifacts import Writer
from pipeline.data.index import Index
from pipeline.params import parse, presets
from pipeline.readers.build import build
from stages.cli.main import COMMANDS, main
from stages.dataset import dataset
from tests.support.sources import annotation, coco_folder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a small folder source in the working directory."""
    (tmp_path / "mine/images").mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(
            tmp_path / f"mine/images/{name}.png"
        )
    (tmp_path / "mine/labels.csv").write_text("image,classes\na,cat\nb,dog\n")
    return tmp_path / "mine"


def test_help_lists_every_command_with_what_it_says_itself(runner: CliRunner) -> None:
    text = " ".join(runner.invoke(main, ["--help"]).output.split())
    for name, what in COMMANDS.items():
        assert f" {name} {what}" in text
        own = runner.invoke(main, [name, "--help"])
        assert own.exit_code == 0, own.output
        assert what in " ".join(own.output.split())


def test_help_and_version_load_nothing_that_takes_long() -> None:
    code = (
        "import sys\nfrom stages.cli.main import main\nmain(sys.argv[1:], standalone_mode=False)\n"
        "print(sorted({'numpy', 'yaml', 'pydantic', 'torch', 'h5py'} & set(sys.modules)))"
    )
    for option in ("--help", "--version"):
        command = [sys.executable, "-c", code, option]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"
    assert re.match(r"weakmask \d+\.\d+", done.stdout)


def test_init_writes_checked_parameters_for_the_layout_found(
    runner: CliRunner, images: Path
) -> None:
    result = runner.invoke(main, ["init", "--preset", "folder", "--source", "mine"])
    assert result.exit_code == 0, result.output
    values = yaml.safe_load(Path("params.yaml").read_text())
    assert (values["dataset"]["source"], values["dataset"]["format"]) == ("mine", "folder")
    assert runner.invoke(main, ["init", "--preset", "folder", "--source", "mine"]).exit_code == 1
    assert runner.invoke(main, ["init", "--source", "mine", "--force"]).exit_code == 0
    text = Path("params.yaml").read_text()
    assert text.startswith("# Images of your own")
    assert text.count("\n") > 140, "the whole file, not the preset's differences"
    parse(yaml.safe_load(text))


def test_init_writes_what_it_found_so_that_the_stage_runs(runner: CliRunner) -> None:
    box = [[2, 1, 8, 1, 8, 6, 2, 6]]
    coco_folder(Path("coco"), [annotation(3, box), annotation(9, box, image=8)])
    result = runner.invoke(main, ["init", "--source", "coco"])
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
    runner.invoke(main, ["init", "--source", "mine"])
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(presets.replace(text, {"dataset": {"classes": ["lynx"]}}))
    for arguments in (["check"], ["check", "mine"]):
        result = runner.invoke(main, arguments)
        assert result.exit_code == 1
        assert "'lynx' is not a class of the source; valid are cat, dog" in result.output
    images.rename("others")
    assert runner.invoke(main, ["check", "others"]).exit_code == 0


def test_check_gives_one_line_per_kind_of_problem(runner: CliRunner, images: Path) -> None:
    rows = [f"p{k},\n" for k in range(20)]
    for k in range(20):
        Image.fromarray(np.full((4, 5, 3), k, np.uint8)).save(images / f"images/p{k}.png")
    with (images / "labels.csv").open("a") as file:
        file.writelines(rows)
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
    runner: CliRunner, images: Path
) -> None:
    """DVC copies what Git or DVC tracks for --queue and --temp; the copies lack the rest."""
    subprocess.run(["git", "init", "-q"], check=True)
    for tracked in (False, True):
        if tracked:
            subprocess.run(["git", "add", "mine"], check=True)
        assert runner.invoke(main, ["init", "--source", "mine", "--force"]).exit_code == 0
        source = yaml.safe_load(Path("params.yaml").read_text())["dataset"]["source"]
        assert source == ("mine" if tracked else str(images))


def test_queue_refuses_a_source_that_the_copies_of_dvc_lack(
    runner: CliRunner, images: Path
) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    runner.invoke(main, ["init", "--source", "mine"])
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(presets.replace(text, {"dataset": {"source": "mine"}}))
    result = runner.invoke(main, ["compare", "--queue", "-S", "base.seed=0,1"])
    assert result.exit_code == 1
    assert "tracks dataset.source mine, so the copies" in result.output
    assert f"write {images} there, or run `dvc add mine`" in result.output


def test_init_scenes_needs_no_source_and_writes_the_preset(runner: CliRunner) -> None:
    result = runner.invoke(main, ["init", "--preset", "scenes", "-o", "mine.yaml"])
    assert result.output == "wrote mine.yaml; next: dvc repro\n"
    assert Path("mine.yaml").read_text() == presets.text("scenes")


def test_a_source_outside_the_repository_is_written_absolute(
    runner: CliRunner, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images.parent / "repository").mkdir()
    monkeypatch.chdir(images.parent / "repository")
    assert runner.invoke(main, ["init", "--source", "../mine"]).exit_code == 0
    assert yaml.safe_load(Path("params.yaml").read_text())["dataset"]["source"] == str(images)


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


def test_suggested_commands_can_be_pasted(runner: CliRunner, images: Path) -> None:
    images.rename("my photos")
    output = runner.invoke(main, ["init", "--source", "my photos"]).output
    suggested = output.rpartition("next: ")[2].rpartition(", then")[0]
    assert shlex.split(suggested) == ["weakmask", "check", "my photos"]


def test_check_reports_all_problems_and_exits_with_1(runner: CliRunner, images: Path) -> None:
    assert runner.invoke(main, ["check", "mine"]).exit_code == 0
    (images / "images/b.png").write_bytes(b"not an image")
    (images / "labels.csv").write_text("image,classes\na,cat\nb,dog\nc,cat\n../d,dog\n")
    result = runner.invoke(main, ["check", "mine"])
    assert result.exit_code == 1
    for word in ("b.png", "c", "../d"):
        assert word in result.output
    assert "errors" in result.output.splitlines()[-1]


def test_inspect_describes_and_draws(runner: CliRunner) -> None:
    index = build("scenes", Path("."), Path("data/dataset"), images=2)
    name = next(iter(index))
    size = index.size(name)
    with Writer(Path("data/seeds.h5"), "seeds", ["boat"]) as writer:
        writer.write(name, {"seeds": np.zeros(size, np.uint8)})
    assert "2 images" in runner.invoke(main, ["inspect", "data/dataset"]).output
    everything = runner.invoke(main, ["inspect"]).output.splitlines()
    assert [line.split(":")[0] for line in everything] == ["dataset", "seeds.h5"]
    assert runner.invoke(main, ["inspect", "data/dataset", name, "-o", "truth.png"]).exit_code == 0
    assert Path("truth.png").stat().st_size > 1000
    described = runner.invoke(main, ["inspect", "data/seeds.h5"])
    assert described.exit_code == 0, described.output
    assert "seeds" in described.output
    drawn = runner.invoke(main, ["inspect", "data/seeds.h5", name, "-o", "sheet.png"])
    assert drawn.exit_code == 0, drawn.output
    with Image.open("sheet.png") as sheet:
        assert sheet.width > size[1]
    missing = runner.invoke(main, ["inspect", "data/seeds.h5", "nobody"])
    assert missing.exit_code == 1
    assert name in missing.output


def test_inspect_without_any_artifact_says_so(runner: CliRunner) -> None:
    Path("dvc.yaml").touch()
    missing = runner.invoke(main, ["inspect"])
    assert missing.exit_code == 1
    assert missing.output == "Error: data: no such file or folder; `dvc repro` makes it\n"
    Path("data").mkdir()
    Path("data/.gitkeep").touch()
    output = runner.invoke(main, ["inspect"]).output
    assert "data: no artifacts here; `dvc repro` makes them" in output


def test_inspect_tells_where_unfinished_work_lies(runner: CliRunner) -> None:
    Path("data").mkdir()
    Path("data/images.csv").write_text("id,miou\na,0.5\n")
    Path(".work/cams/0123").mkdir(parents=True)
    assert runner.invoke(main, ["inspect", ".work"]).output == "no stage is under way\n"
    Path(".work/cams/0123/shard-000000.h5.part").touch()
    output = runner.invoke(main, ["inspect"]).output
    assert "unfinished work of cams: weakmask inspect .work" in output


def test_scores_print_every_step(runner: CliRunner) -> None:
    Path("data/scores").mkdir(parents=True)
    Path("data/scores/seeds.json").write_text('{"seeds": {"miou": 94.0, "coverage": 92.1}}')
    Path("data/scores/labels.json").write_text('{"labels": {"miou": 88.2, "AP50": 95.6}}')
    lines = [line.split() for line in runner.invoke(main, ["scores"]).output.splitlines()]
    assert ["seeds", "train", "94.0", "of", "92.1", "%", "of", "the", "pixels"] in lines
    assert ["labels", "train", "88.2", "95.6"] in lines


def test_scores_without_any_say_why(runner: CliRunner) -> None:
    missing = runner.invoke(main, ["scores"])
    assert missing.exit_code == 1
    where = f"{Path.cwd()} is not a weakmask project (it has no dvc.yaml): change to its folder"
    assert missing.output == f"Error: data/scores: there are no scores yet; {where}\n"
    Path("dvc.yaml").touch()
    assert "no scores yet; make them with `dvc repro`" in runner.invoke(main, ["scores"]).output
    Path("data/scores").mkdir(parents=True)
    Path("data/scores/cams.json").write_text('{"cams": {}}')
    unscored = runner.invoke(main, ["scores"])
    assert unscored.exit_code == 1
    assert "no image has a ground-truth mask, so nothing is scored" in unscored.output


@pytest.mark.parametrize("command", ["export --format voc -o x", "browse", "inspect", "scores"])
def test_commands_outside_a_project_say_so(runner: CliRunner, command: str) -> None:
    result = runner.invoke(main, command.split())
    assert result.exit_code == 1
    assert "is not a weakmask project (it has no dvc.yaml): change to its folder" in result.output
    assert "dvc repro" not in result.output
