"""The benchmark of many images: what is reckoned from its rates, and what is seen of a command that
is watched.
"""

import os
import sys
from pathlib import Path

import pytest

from benchmarks.scale.__main__ import names, prepare, watched
from benchmarks.scale.plot import draw, speeds
from benchmarks.scale.sheet import SETS, Data, rates, sheet, works
from benchmarks.scale.watch import GPUS, Sample, Watched, gpus_busy, watch
from pipeline.params import presets
from tests.support.repository import ROOT, run

PRESET = presets.load("voc12")
VOC = SETS["VOC 2012 train_aug"]


def cells(lines: list[str], stage: str) -> list[float]:
    row = next(line for line in lines if line.startswith(f"| {stage} |"))
    return [float(cell.replace(",", "")) for cell in row.split("|")[2:-1]]


def test_the_measured_data_set_takes_what_was_measured() -> None:
    hours = {stage: 1.0 + number for number, stage in enumerate(works(PRESET, VOC))}
    seconds = {stage: 3600 * value for stage, value in hours.items()}
    disk = {"cams.h5": 5 * 10**9, "predictions.h5": 10**9, "classifier.safetensors": 10**9}
    lines = list(sheet(rates(PRESET, VOC, seconds, disk), ranks=1))
    assert {stage: cells(lines, stage)[0] for stage in hours} == hours
    assert cells(lines, "cams.h5")[0] == 5.0
    assert cells(lines, "predictions.h5")[:3] == [1.0, pytest.approx(46, rel=0.01), 0.0]
    assert not any("safetensors" in line for line in lines)


def test_stages_are_those_that_dvc_lists() -> None:
    assert names(ROOT) == run(ROOT, "dvc", "stage", "list", "--name-only").stdout.split()


def test_a_stage_runs_without_dvc(tmp_path: Path) -> None:
    prepare(tmp_path, 40, 0.1, {"dataset.scenes.images": 2})
    found = watched(tmp_path, "dataset", without_dvc=True)
    assert found.code == 0, found.said
    assert (tmp_path / "data/dataset/images.csv").is_file()
    assert not (tmp_path / "dvc.lock").exists()


def test_twice_the_ranks_take_half_the_hours() -> None:
    found = rates(PRESET, VOC, {"seeds": 3600.0}, {})
    assert cells(list(sheet(found, 2)), "seeds")[0] == 0.5


def test_work_grows_with_the_images() -> None:
    twice = works(PRESET, Data(2 * VOC.train, 2 * VOC.val, VOC.megapixels, ""))
    assert twice == pytest.approx({stage: 2 * work for stage, work in works(PRESET, VOC).items()})


def test_a_watched_command_is_counted_to_its_end(tmp_path: Path) -> None:
    code = "import sys; [print(f'{n}/40 [', file=sys.stderr) for n in range(41)]; sys.exit(3)"
    found = watch([sys.executable, "-c", code], tmp_path, dict(os.environ))
    assert found.total == 40
    assert found.code == 3
    assert found.parts(4) == []


def test_what_was_watched_is_kept(tmp_path: Path) -> None:
    found = Watched([Sample(0.5, 100, 0), Sample(1.5, 200, 7, 40.0)], bytearray(b"7/7 ["), 2.0, 0)
    found.save(tmp_path / "cams.json")
    kept = Watched.load(tmp_path / "cams.json")
    assert (kept.samples, kept.seconds, kept.code) == (found.samples, 2.0, 0)


def test_stretches_show_what_becomes_slower_and_larger() -> None:
    slowing = [Sample(n if n <= 20 else 20 + 2 * (n - 20), 100 + n, n) for n in range(41)]
    parts = Watched(slowing).parts(2)
    assert [rate for rate, _ in parts] == pytest.approx([1.0, 0.5], rel=0.05)
    assert parts[1][1] == 140 > parts[0][1]


@pytest.mark.parametrize(
    ("says", "busy"), [("35\n71\n", 53.0), ("[N/A]\n", None), ("No devices were found\n", None)]
)
def test_gpus_are_as_busy_as_the_driver_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, busy: float | None
) -> None:
    tool = tmp_path / GPUS[0]
    tool.write_text(f"#!/bin/sh\nprintf '{says}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gpus_busy() == busy


def test_without_gpu_nothing_is_said_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus_busy() is None
    assert Watched([Sample(1.0, 1, 1)]).busy is None
    assert Watched([Sample(1.0, 1, 1, 40.0), Sample(2.0, 1, 1, 80.0)]).busy == 60.0


def test_joining_the_results_makes_no_stretch_slower() -> None:
    steady = [Sample(n, 100, n) for n in range(41)]
    joining = [Sample(41.0 + n, 300, 40) for n in range(30)]
    assert Watched(steady + joining).parts(4) == [(1.0, 100)] * 4


def test_speeds_are_drawn_of_work_that_takes_a_while(tmp_path: Path) -> None:
    steady = Watched([Sample(float(n), 100, n) for n in range(122)])
    assert speeds(steady) == [(16.0 + 15 * n, 1.0) for n in range(8)]
    short = Watched([Sample(float(n), 100, 0) for n in range(9)])
    assert speeds(short) == speeds(Watched()) == []
    draw({"seeds": steady, "guidance": short}, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").stat().st_size > 1000
    draw({"guidance": short}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
