"""The time of `dvc repro` when nothing has changed: what a person waits before every experiment.

Each stage of a copy of the repository is made cheaply: its outputs are stand-ins, committed to DVC
as if the stage had run. The report is left as the graph has it. There is no reference; the aim is 2
s.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import Benchmark, Published

ROOT = Path(__file__).resolve().parents[1]
GOAL = 2.0


def ours() -> Callable[[], object]:
    folder = _copy()
    _make_outputs(folder)
    _dvc(folder, "commit", "--force", "--quiet")
    return lambda: _unchanged(folder)


def _copy() -> Path:
    """Return a clone of the repository's last commit, which goes with this process."""
    parent = Path(tempfile.mkdtemp(prefix="weakmask-bench-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    subprocess.run(["git", "clone", "-q", str(ROOT), str(parent / "copy")], check=True)
    return parent / "copy"


def _make_outputs(folder: Path) -> None:
    """Write a stand-in for every output of the graph."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        outs = [Path(out.fs_path) for stage in repo.index.stages for out in stage.outs]
    for path in outs:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.write_text("0\n")
        else:
            path.mkdir(exist_ok=True)
            (path / "stand-in").write_text("0\n")


def _unchanged(folder: Path) -> None:
    done = _dvc(folder, "repro")
    if "up to date" not in done.stdout:
        raise RuntimeError(f"dvc repro had something to do: {done.stdout}")


def _dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, Any] = os.environ | {"DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done


BENCHMARKS = (
    Benchmark(
        "dvc repro, nothing changed",
        "the whole graph",
        ours,
        Published(GOAL, None),
        "goal of this project",
    ),
)
