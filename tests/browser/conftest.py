"""Runs to look into."""

import shutil
from pathlib import Path

import pytest

from pipeline.browser.run import Run
from tests.support.runs import run_of, write_run


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run that nobody changes; its labels miss the truth by two pixels."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, shift=2)
    return folder


@pytest.fixture(scope="session")
def run(written: Path) -> Run:
    """The run in it."""
    return run_of(written)


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of the folder, for tests that change it."""
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True)
