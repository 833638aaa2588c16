"""A machine for tests, one process on the CPU unless they want more, and stages run on it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result

from pipeline.core.device import Runtime
from tests.support.repository import ROOT, set_parameters


def runtime(folder: Path, **changes: Any) -> Runtime:
    """Return settings with unfinished work under `folder`, and with these changes."""
    settings: dict[str, Any] = {
        "device_setting": "cpu",
        "precision_setting": "float32",
        "workers": 1,
        "batch": 3,
        "shard": 4,
        "checkpoint": 60.0,
        "skip_bad": False,
        "work": folder / "work",
        "rank": 0,
        "world_size": 1,
    }
    return Runtime(**settings | changes)


def run_stage(
    stage: click.Command, *arguments: str, values: Mapping[str, object] | None = None
) -> Result:
    """Run a stage in the working directory; `values` are parameters by dotted name."""
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"))
    set_parameters(Path(), {"runtime.workers": 1, "runtime.device": "cpu", **(values or {})})
    return CliRunner().invoke(stage, arguments, catch_exceptions=False)
