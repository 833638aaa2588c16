"""A machine for tests: one process on the CPU, unless they want more."""

from pathlib import Path
from typing import Any

import torch

from pipeline.core.device import Runtime


def runtime(folder: Path, **changes: Any) -> Runtime:
    """Settings with unfinished work under `folder`, and with these changes."""
    settings: dict[str, Any] = {
        "device": torch.device("cpu"),
        "precision": torch.float32,
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
