"""Repositories to run the graph in, for tests and benchmarks."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "DVC_NO_ANALYTICS": "1",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@example.org",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@example.org",
}
QUICK = {
    "dataset.scenes.images": 12,
    "classifier.method": "cam",
    "classifier.epochs": 1,
    "classifier.batch": 4,
    "classifier.crop": 64,
    "classifier.resize": [64, 96],
    "cams.scales": [0.5],
    "irnet.epochs": 1,
    "irnet.batch": 4,
    "irnet.crop": 96,
    "semantic.epochs": 1,
    "semantic.batch": 4,
    "semantic.crop": 64,
    "instance.method": "sparseinst",
    "instance.epochs": 1,
    "instance.batch": 4,
    "instance.crop": 64,
    "instance.resize": [64, 96],
    "instance.sparseinst.width": 16,
    "instance.sparseinst.queries": 8,
    "predictions.instances.sides": [96, 160],
    "runtime.shard": 3,
    "runtime.workers": 1,
    "report.images": 2,
    "report.worst": 1,
}

BY_IMAGE = ("segments", "cams", "seeds", "fields", "walk", "labels", "predictions")
"""Stages that write a record per image, in the order of the pipeline."""


def run(
    folder: Path, *command: str, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def set_parameters(folder: Path, values: Mapping[str, object]) -> None:
    parameters = yaml.load((folder / "params.yaml").read_text(), yaml.CSafeLoader)
    for name, value in values.items():
        *sections, last = name.split(".")
        section = parameters
        for key in sections:
            section = section[key]
        assert last in section, name
        section[last] = value
    (folder / "params.yaml").write_text(yaml.dump(parameters, Dumper=yaml.CSafeDumper))


def commit(folder: Path) -> None:
    """Make a Git repository of a folder, with one commit of all that is in it."""
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "start")


def copy_code(folder: Path) -> None:
    """Copy this repository's files, as they are now, to a folder."""
    for name in run(ROOT, "git", "ls-files", "-co", "--exclude-standard").stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(
            ("tests/", "benchmarks/", "docs/", "dvc.lock")
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def scores_of(folder: Path, name: str) -> dict[str, float]:
    """The scores of a step that DVC lists."""
    return json.loads((folder / f"data/scores/{name}.json").read_text())[name]


def stale(folder: Path) -> set[str]:
    """Stages that `dvc repro` would run now, but for those whose inputs only they will change."""
    text = run(folder, "dvc", "repro", "--dry").stdout
    return {line.split("'")[1] for line in text.splitlines() if line.startswith("Running stage")}


if __name__ == "__main__":  # shorten the trainings of the project in this folder
    set_parameters(Path(), {name: value for name, value in QUICK.items() if "dataset" not in name})
