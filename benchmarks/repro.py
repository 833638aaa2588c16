"""`dvc repro` when nothing has changed: what a user waits before every experiment.

Every output of the graph is a placeholder, committed to DVC as if its stage had run; the dataset
holds a file for each image, as that of the built-in scenes does.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.measure import Benchmark, Measurement, temporary_folder
from tests.support.repository import ROOT, run

GOAL = 2.0


def repro(images: int) -> Callable[[], object]:
    folder = temporary_folder() / "copy"
    run(ROOT, "git", "clone", "-q", str(ROOT), str(folder))
    write_placeholders(folder, images)
    run(folder, "dvc", "commit", "--force", "--quiet")
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
    printed = run(folder, "dvc", "repro").stdout
    if "up to date" not in printed:
        raise RuntimeError(f"dvc repro had something to do: {printed}")


BENCHMARKS = tuple(
    Benchmark(
        "dvc repro, nothing changed",
        f"{images:,} images",
        partial(repro, images),
        Measurement(GOAL, None),
        "goal of this project",
    )
    for images in (400, 20_000)
)
