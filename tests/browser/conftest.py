"""Runs to look into."""

from pathlib import Path

import pytest

from pipeline.browser.run import Run
from tests.support.runs import run_of, write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a whole run, for tests that change it."""
    write_run(tmp_path, shift=2)
    return tmp_path


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run that nobody changes; its labels miss the truth by two pixels."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, shift=2)
    return run_of(folder)
