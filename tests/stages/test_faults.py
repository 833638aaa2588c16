"""Stages that are harmed: they say so, go on from what was finished, and write the same bytes (see
benchmarks/faults).
"""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults.box import Box
from benchmarks.faults.trials import Trial, killed, sabotaged, truncated, without_worker
from tests.support.repository import ENVIRONMENT, ROOT, set_parameters, up_to_date

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BY_IMAGE, TRAINED = "cams", "irnet"
"""One stage of each engine; `python -m benchmarks.faults` harms all of them."""


@pytest.fixture(scope="module")
def box(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Box:
    """A run of the whole graph, the file's own, with a checkpoint after every step."""
    folder = tmp_path_factory.mktemp("faults") / "run"
    shutil.copytree(finished, folder, symlinks=True)
    set_parameters(folder, {"runtime.checkpoint": 0.001})
    return Box(folder)


def check(trials: list[Trial], least: int) -> None:
    """Every fault was survived, and there were as many as `least`."""
    assert not [(trial.stage, trial.fault, trial.wrong) for trial in trials if not trial.survived]
    assert len(trials) >= least


@pytest.mark.parametrize("stage", [BY_IMAGE, TRAINED])
def test_killed_at_any_moment_a_stage_goes_on_to_the_same_bytes(box: Box, stage: str) -> None:
    check(list(killed(box, stage, 2, random.Random(0))), 2)


@pytest.mark.parametrize(("stage", "least"), [(BY_IMAGE, 6), (TRAINED, 4)])
def test_killed_within_a_write_and_a_merge_nothing_is_half_there(
    box: Box, stage: str, least: int
) -> None:
    check(list(sabotaged(box, stage, 2)), least)


@pytest.mark.parametrize("stage", [BY_IMAGE, TRAINED, "scores@walk"])
def test_a_worker_that_is_killed_is_told_and_the_rest_is_kept(box: Box, stage: str) -> None:
    check(list(without_worker(box, stage, random.Random(0))), 1)


@pytest.mark.parametrize("stage", ["seeds", "semantic"])
def test_an_input_cut_to_half_is_named(box: Box, stage: str) -> None:
    check(list(truncated(box, stage)), 3)


def test_dvc_finds_everything_as_it_was(box: Box) -> None:
    box.restore()
    assert up_to_date(box.folder)


def test_a_full_disk_is_told_and_the_rest_is_kept(box: Box) -> None:
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-rm", "true"], check=False).returncode
    ):
        pytest.skip("needs the right to mount in a namespace of its own (unshare -rm)")
    command = [
        sys.executable,
        "-m",
        "benchmarks.faults",
        "--kinds",
        "full",
        "--run",
        str(box.folder),
    ]
    done = subprocess.run(
        [*command, "--stages", f"{BY_IMAGE},{TRAINED}"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "disk full" in done.stdout
