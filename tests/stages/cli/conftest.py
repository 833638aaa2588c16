"""What the tests of commands share."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image


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
