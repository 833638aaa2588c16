"""`dvc repro` when nothing has changed: what a user waits before every experiment.

Every output of the graph is a placeholder, committed to DVC as if its stage had run; the dataset
holds a file for each image, as that of the built-in scenes does.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.measure import Benchmark, Published, temporary_folder

ROOT = Path(__file__).resolve().parents[1]
GOAL = 2.0


def repro(images: int) -> Callable[[], object]:
    folder = temporary_folder() / "copy"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    write_placeholders(folder, images)
    dvc(folder, "commit", "--force", "--quiet")
    return partial(check_unchanged, folder)


def write_placeholders(folder: Path, images: int) -> None:
    """Write something for every output of the graph, and for what stages read inside of them."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        stages = list(repo.index.stages)
    files = [Path(part.fs_path) for stage in stages for part in (*stage.outs, *stage.deps)]
    for path in files:
        if path.exists():  # code
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.write_text("0\n")
        else:
            path.mkdir()
            (path / "placeholder").write_text("0\n")
    photos = folder / "data/dataset/images"
    photos.mkdir(exist_ok=True)
    for number in range(images):
        (photos / f"{number}.jpg").write_text(f"{number}\n")


def check_unchanged(folder: Path) -> None:
    printed = dvc(folder, "repro")
    if "up to date" not in printed:
        raise RuntimeError(f"dvc repro had something to do: {printed}")


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC in a folder and return what it printed."""
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


BENCHMARKS = tuple(
    Benchmark(
        "dvc repro, nothing changed",
        f"{images:,} images",
        partial(repro, images),
        Published(GOAL, None),
        "goal of this project",
    )
    for images in (400, 20_000)
)
