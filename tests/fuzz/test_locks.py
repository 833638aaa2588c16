"""Damaged lock files and lists of cached folders end in a result or in a message."""

import io
import json
from functools import partial
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.errors import UserError
from stages.experiments.dvc_cache import (
    LockedFile,
    cache_path,
    cached_files,
    outputs,
    parse_lock,
    read_yaml,
    run_parameters,
    stale_outputs,
)
from tests.support.harm import HARD, changed, harmed, result_or_message
from tests.support.locks import lock_of

pytestmark = pytest.mark.timeout(60)
LOCK = {"schema": "2.0", "stages": lock_of()}
LISTED = [{"md5": "d" * 32, "relpath": "index.json"}, {"md5": "e" * 32, "relpath": "images/a.png"}]


def as_yaml(values: object) -> bytes:
    stream = io.BytesIO()
    YAML(typ="safe").dump(values, stream)
    return stream.getvalue()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of DVC."""
    monkeypatch.setattr("stages.experiments.dvc_cache.cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@HARD
@given(
    data=harmed(as_yaml(LOCK))
    | changed(json.loads(json.dumps(LOCK))).map(json.dumps).map(str.encode),
    parameters=harmed(b"base: {seed: 0}\ncams: {scales: [0.5]}\n"),
)
def test_harmed_lock_files(cache: Path, data: bytes, parameters: bytes) -> None:
    stages = result_or_message(lambda: parse_lock(data.decode("utf-8", "replace")), "dvc.lock")
    if stages is None:
        return
    text = parameters.decode("utf-8", "replace")
    values = result_or_message(lambda: run_parameters(text, stages), "params.yaml")
    outs = outputs(stages)
    assert values is None or stale_outputs(stages, values) <= set(outs)
    for out in outs.values():
        place = result_or_message(partial(cache_path, out), "dvc.lock")
        assert place is None or (place.is_relative_to(cache) and ".." not in place.parts)


@pytest.mark.parametrize("md5", ["../../../etc/passwd", "/etc/passwd", "", 5])
def test_a_digest_that_leaves_the_cache_is_refused(md5: object) -> None:
    lock = {"stages": {"cams": {"outs": [{"path": "data/cams.h5", "md5": md5}]}}}
    with pytest.raises(UserError, match=r"^dvc\.lock: damaged"):
        parse_lock(json.dumps(lock))


@pytest.mark.parametrize("text", ["a: !!python/name:os.mkdir", "a: \0"])
def test_invalid_yaml_of_a_revision_is_named(text: str) -> None:
    with pytest.raises(UserError, match=r"^v1:params\.yaml: not valid YAML"):
        read_yaml(text, "v1:params.yaml")


@HARD
@given(
    data=harmed(json.dumps(LISTED).encode())
    | changed(LISTED).map(lambda v: json.dumps(v).encode())
    | st.lists(st.sampled_from(["..", ".", "", "a", "\0"]), max_size=5).map(
        lambda parts: json.dumps([{"md5": "d" * 32, "relpath": "/".join(parts)}]).encode()
    )
)
def test_harmed_lists_of_cached_folders(cache: Path, data: bytes) -> None:
    out = LockedFile(path="data/report", md5=f"{'f' * 32}.dir")
    cache_path(out).parent.mkdir(parents=True, exist_ok=True)
    cache_path(out).write_bytes(data)
    for relative, file in (
        result_or_message(lambda: cached_files(out), "data/report") or {}
    ).items():
        assert ".." not in PurePosixPath(relative).parts
        assert not PurePosixPath(relative).is_absolute()
        assert file.is_relative_to(cache)
