"""What the tests of `weakmask compare` and those of its parts have in common."""

from pathlib import Path

import pytest
from repositories import ENVIRONMENT, ROOT, set_parameters


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with parameters and a graph, in no repository."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    set_parameters(tmp_path, {"classifier.method": "cam"})
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return tmp_path
