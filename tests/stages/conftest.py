"""Folders that the tests of the commands run in."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline.readers.build import build
from tests.support.repository import (
    ENVIRONMENT,
    QUICK,
    ROOT,
    commit,
    copy_code,
    run,
    set_parameters,
)


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


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a dataset of three scenes, one of them in split `val`."""
    monkeypatch.chdir(tmp_path)
    build("scenes", Path(), Path("data/dataset"), images=3, val=0.34)
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository in which the whole graph has run, on a handful of scenes with a
    network without weights.

    Not to be changed: all processes of a test run share it, and the first that needs it makes it.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, done = shared / "finished", shared / "finished.done"
    with FileLock(shared / "finished.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            copy_code(folder)
            set_parameters(folder, QUICK)
            commit(folder)
            run(folder, "dvc", "repro")
            run(folder, "git", "add", "-A")
            run(folder, "git", "commit", "-qm", "first run")
            done.touch()
    return folder


@pytest.fixture(scope="module")
def repository(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which the whole graph has run, the file's own."""
    folder = tmp_path_factory.mktemp("graph") / "repository"
    shutil.copytree(finished, folder, symlinks=True)
    return folder


@pytest.fixture
def restored(finished: Path, repository: Path) -> Iterator[Path]:
    """The repository; parameters and artifacts are put back afterwards."""
    yield repository
    run(repository, "git", "checkout", "-q", "--", ".")
    for folder in ("data", ".work"):
        shutil.rmtree(repository / folder, ignore_errors=True)
    shutil.copytree(finished / "data", repository / "data", symlinks=True)
