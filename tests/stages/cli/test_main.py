"""The command line: what it writes, prints and refuses."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline.core.artifacts import Writer
from pipeline.readers.build import build
from stages.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[3]


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


def test_inspect_describes_and_draws(runner: CliRunner) -> None:
    index = build("scenes", Path("."), Path("data/dataset"), images=2)
    name = next(iter(index))
    size = index.size(name)
    with Writer(Path("data/seeds.h5"), "seeds", ["boat"]) as writer:
        writer.write(name, {"seeds": np.zeros(size, np.uint8)})
    assert "2 images" in runner.invoke(main, ["inspect", "data/dataset"]).output
    everything = runner.invoke(main, ["inspect"]).output.splitlines()
    assert [line.split(":")[0] for line in everything] == ["dataset", "seeds.h5"]
    assert runner.invoke(main, ["inspect", "data/dataset", name]).exit_code == 0
    assert Path(f"data/inspect/{name}.png").stat().st_size > 1000
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
    Path("data/cams.json").write_text("{}")
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
    where = f"{Path.cwd()} is not a weakmask project (it has no dvc.yaml): change to its folder"
    assert f"; {where}\n" in result.output
    assert "dvc repro" not in result.output
