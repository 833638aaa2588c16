"""What the tests of commands share."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.sources import own_folder


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a small folder source in the working directory."""
    return own_folder(tmp_path / "mine", ["a,cat", "b,dog"])
