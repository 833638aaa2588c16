"""Unfinished work: what changes a fingerprint, whole files only, and tidying up."""

import os
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.core import resume
from pipeline.errors import UserError


def test_a_fingerprint_follows_parameters_and_the_content_of_inputs(tmp_path: Path) -> None:
    artifact = tmp_path / "cams.h5"
    artifact.write_bytes(b"one")
    first = resume.fingerprint({"a": 1, "b": [1.5]}, [artifact])
    assert resume.fingerprint({"b": [1.5], "a": 1}, [artifact]) == first
    assert resume.fingerprint({"a": 2, "b": [1.5]}, [artifact]) != first
    os.utime(artifact, (0, 0))
    assert resume.fingerprint({"a": 1, "b": [1.5]}, [artifact]) == first
    artifact.write_bytes(b"two")
    assert resume.fingerprint({"a": 1, "b": [1.5]}, [artifact]) != first


def test_a_folder_counts_by_its_index(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{}")
    (tmp_path / "images.csv").write_text("id,digest\na,1\n")
    first = resume.fingerprint({}, [tmp_path])
    assert resume.fingerprint({}, [tmp_path]) == first
    (tmp_path / "images.csv").write_text("id,digest\na,2\n")
    assert resume.fingerprint({}, [tmp_path]) != first


@pytest.mark.parametrize("name", ["pipeline.novel", "__main__"])
def test_a_fingerprint_follows_the_source_of_loaded_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """That of the stage that runs, too."""
    source, module = tmp_path / "novel.py", ModuleType(name)
    module.__file__, module.__spec__ = str(source), ModuleSpec("pipeline.novel", None)
    source.write_text("a = 1")
    before = resume.fingerprint({}, [])
    monkeypatch.setitem(sys.modules, name, module)
    first = resume.fingerprint({}, [])
    assert first != before
    os.utime(source, (0, 0))
    assert resume.fingerprint({}, []) == first
    source.write_text("a = 2")
    assert resume.fingerprint({}, []) != first


def test_a_write_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.bin"
    resume.write_atomically(path, b"old")

    def die(source: Path, target: Path) -> None:
        assert Path(source).read_bytes() == b"new"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            resume.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    resume.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(UserError, match=r"x\.bin/y: cannot be written \(File exists\)"):
        resume.write_atomically(path / "y", b"in a file")


def test_tidying_up_spares_the_work_of_others(tmp_path: Path) -> None:
    mine = resume.folder(tmp_path, "cams", "mine")
    other, abandoned = tmp_path / "cams" / "other", tmp_path / "cams" / "abandoned"
    elsewhere = resume.folder(tmp_path, "seeds", "mine")
    for path in (mine, other, abandoned):
        path.mkdir(exist_ok=True)
        (path / "shard").write_bytes(b"1")
    os.utime(abandoned, (time.time() - 2 * resume.ABANDONED,) * 2)
    resume.cleanup(tmp_path, "cams")
    assert (other / "shard").is_file()
    assert not mine.exists()
    assert not abandoned.exists()
    assert elsewhere.is_dir()
    resume.cleanup(tmp_path, "seeds")
    resume.cleanup(tmp_path, "never begun")
    assert [path.name for path in tmp_path.iterdir()] == ["cams"], "no empty folder"
