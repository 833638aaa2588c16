"""Parameters, indices, reports, lock files and lists that are damaged or hostile end in a result or
in a message.
"""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.index import HEADER, TABLE, Image, Index
from pipeline.errors import UserError
from pipeline.params import parse
from pipeline.readers.coco import rasterize
from pipeline.readers.coco import read as read_coco
from pipeline.readers.folder import read_classes, read_labels, read_multihot
from pipeline.readers.source import complain_of_id, complain_of_split
from pipeline.readers.voc import read_objects
from pipeline.views.report_data import ReportData, StepScores, load
from stages._command import PRESETS, read_parameters
from stages.cli.main import _scores_of
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
from tests.support.harm import HARD, changed, harmed, json_values, result_or_message

pytestmark = pytest.mark.timeout(60)
PRESET = (PRESETS / "folder.yaml").read_bytes()


@HARD
@given(data=harmed(PRESET))
def test_harmed_parameters(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(data)
    result_or_message(lambda: read_parameters(path), path)


@HARD
@given(values=changed(yaml.safe_load(PRESET)))
def test_parameters_of_other_kinds(values: Any) -> None:
    result_or_message(lambda: parse(values, "mine.yaml"), "mine.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: !!python/object/apply:os.mkdir [made]", "could not determine a constructor"),
        ("a: !!python/name:os.mkdir", "could not determine a constructor"),
        ("a: !!int ''", "not valid YAML"),
        ("a: !!bool maybe", "not valid YAML"),
        ("a: !!timestamp never", "not valid YAML"),
        ("a: 2001-99-99", "not valid YAML"),
        (f"a: {'9' * 5000}", "not valid YAML"),
        ("[" * 20_000, "not valid YAML"),
        ("a: \0", "not valid YAML"),
        ("- a", "must hold sections"),
        ("", "must hold sections"),
        ("1: 2\nnull: 3", "mine.yaml is not valid"),
    ],
)
def test_hostile_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_parameters(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 10_000
    assert [file.name for file in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize("text", ["a: !!python/name:os.mkdir", "[" * 20_000])
def test_hostile_yaml_of_a_revision(text: str) -> None:
    with pytest.raises(UserError, match=r"^v1:params\.yaml: not valid YAML"):
        read_yaml(text, "v1:params.yaml")


def test_parameters_that_are_a_folder_or_latin_1(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"a: \xff")
    for path in (tmp_path, tmp_path / "mine.yaml"):
        with pytest.raises(UserError) as caught:
            read_parameters(path)
        assert str(path) in str(caught.value)


def index(path: Path) -> Index:
    images = [
        Image(name, f"images/{name}.png", 12, 16, "train", (0,), "masks/a.png", None, "0" * 32)
        for name in "ab"
    ]
    whole = Index(("cat", "dog"), images, path, path, {0: 0, 1: 1, 2: 2, 255: 255})
    whole.save(path)
    return whole


@HARD
@given(data=st.data(), file=st.sampled_from([HEADER, TABLE]))
def test_harmed_indices(tmp_path: Path, data: st.DataObject, file: str) -> None:
    whole = index(tmp_path)
    path = tmp_path / file
    path.write_bytes(data.draw(harmed(path.read_bytes())))
    found = result_or_message(lambda: Index.load(tmp_path), tmp_path)
    assert found is None or found == whole


@HARD
@given(data=st.data())
def test_headers_of_indices_of_other_kinds(tmp_path: Path, data: st.DataObject) -> None:
    index(tmp_path)
    path = tmp_path / HEADER
    path.write_text(json.dumps(data.draw(changed(json.loads(path.read_text())))))
    result_or_message(lambda: Index.load(tmp_path), tmp_path)


@pytest.mark.parametrize("file", ["../../secret.png", "/etc/passwd", "a/../../b.png", "a\0b"])
@pytest.mark.parametrize("column", ["path", "semantic", "instances"])
def test_an_index_whose_digest_fits_leads_nowhere_else(
    tmp_path: Path, file: str, column: str
) -> None:
    files = {"path": "a.png", "semantic": None, "instances": None, column: file}
    image = Image(
        "a", files["path"], 12, 16, "train", (), files["semantic"], files["instances"], "0"
    )
    Index(("cat",), [image], tmp_path, tmp_path, {0: 0}).save(tmp_path)
    with pytest.raises(UserError, match=r"images\.csv: damaged .*which leaves the folder"):
        Index.load(tmp_path)


SUMMARY = ReportData(
    [StepScores("cams", "train", 3, {"miou": 0.5, "best_miou": None})],
    {"cams": {"cat": {"iou": 0.5}}},
    {"cams": {"missed": {"count": 1, "images": 1, "out_of": 3}}},
    {"cams": [(0.1, 0.5)]},
    {"cams": {"a": 0.5}},
    {"base": {"seed": 0}},
    {"torch": "2"},
)


@HARD
@given(
    data=harmed(SUMMARY.json().encode())
    | changed(json.loads(SUMMARY.json())).map(lambda v: json.dumps(v).encode())
)
def test_harmed_reports(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(data)
    found = result_or_message(lambda: load(path), path)
    if found is not None:
        assert all(isinstance(found.gain(scores), float | None) for scores in found.steps)


def test_a_report_comes_back(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(SUMMARY.json())
    assert load(tmp_path / "report.json") == SUMMARY


def lock() -> dict[str, Any]:
    def file(path: str, digit: str) -> dict[str, Any]:
        return {"path": path, "hash": "md5", "md5": digit * 32}

    return {
        "schema": "2.0",
        "stages": {
            "dataset": {
                "outs": [{"path": "data/dataset", "hash": "md5", "md5": f"{'f' * 32}.dir"}]
            },
            "cams": {
                "cmd": "python -m stages.cams",
                "deps": [file("data/dataset/index.json", "d")],
                "params": {"params.yaml": {"base.seed": 0, "cams": {"scales": [0.5]}}},
                "outs": [file("data/cams.h5", "b")],
            },
            "labels": {"deps": [file("data/cams.h5", "b")], "outs": [file("data/labels.h5", "c")]},
        },
    }


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of DVC."""
    monkeypatch.setattr("stages.experiments.dvc_cache.cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@HARD
@given(
    data=harmed(yaml.safe_dump(lock()).encode())
    | changed(lock()).map(lambda v: yaml.safe_dump(v).encode()),
    parameters=harmed(b"base: {seed: 0}\ncams: {scales: [0.5]}\n"),
)
def test_harmed_lock_files(cache: Path, data: bytes, parameters: bytes) -> None:
    listing = cache / "files/md5/ff" / f"{'f' * 30}.dir"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text(json.dumps(LISTED))
    text = data.decode("utf-8", "replace")
    stages = result_or_message(lambda: parse_lock(text), "dvc.lock")
    if stages is None:
        return
    settings = parameters.decode("utf-8", "replace")
    values = result_or_message(lambda: run_parameters(settings, stages), "params.yaml")
    stale = result_or_message(lambda: stale_outputs(stages, values or {}), "")
    assert stale is None or stale <= set(outputs(stages))
    for out in outputs(stages).values():
        place = result_or_message(lambda out=out: cache_path(out), "dvc.lock")
        assert place is None or place.is_relative_to(cache)
        assert place is None or ".." not in place.parts


LISTED = [{"md5": "d" * 32, "relpath": "index.json"}, {"md5": "e" * 32, "relpath": "images/a.png"}]


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
    for relative, file in (result_or_message(lambda: cached_files(out), "") or {}).items():
        assert ".." not in PurePosixPath(relative).parts
        assert not PurePosixPath(relative).is_absolute()
        assert file.is_relative_to(cache)


XML = b"<annotation><object><name>cat</name><part><name>head</name></part></object></annotation>"


@HARD
@given(data=harmed(XML))
def test_harmed_annotations(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(data)
    found = result_or_message(lambda: read_objects(path), path)
    assert found is None or all(isinstance(name, str) for name in found)


COCO = {
    "images": [{"id": 7, "file_name": "a.png", "height": 12, "width": 16}],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 3,
            "iscrowd": 0,
            "segmentation": [[2, 1, 8, 1, 8, 6]],
        }
    ],
    "categories": [{"id": 3, "name": "cat"}],
}


@HARD
@given(
    data=harmed(json.dumps(COCO).encode()) | changed(COCO).map(lambda v: json.dumps(v).encode()),
)
def test_harmed_instances_of_coco(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "train").mkdir(exist_ok=True)
    path = tmp_path / "annotations/instances_train.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    source = result_or_message(lambda: read_coco(tmp_path), path)
    for entry in source.entries if source else ():
        if entry.render is not None:
            painted = or_value_error(lambda entry=entry: entry.render({"cat": 1}, (12, 16)))
            assert isinstance(painted, str) or painted[0].shape == painted[1].shape == (12, 16)


def or_value_error(work: Callable[[], Any]) -> Any:
    """What the work gives, or the text of the ValueError that it ends in; no other error is let
    through.
    """
    try:
        return work()
    except ValueError as error:
        message = str(error)
    assert message
    return message


@HARD
@given(
    segmentation=json_values
    | changed({"size": [12, 16], "counts": [100, 92]})
    | changed({"size": [12, 16], "counts": "T3"})
    | st.lists(st.lists(st.floats() | st.integers(), max_size=8), max_size=3)
)
def test_outlines_of_all_kinds(segmentation: Any) -> None:
    found = or_value_error(lambda: rasterize(segmentation, (12, 16)))
    assert isinstance(found, str) or found.shape == (12, 16)


@HARD
@given(data=harmed('image,classes,split\na,cat;dog,train\n"b, c",Hündin,val\n'.encode()))
def test_harmed_tables(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(data)
    result_or_message(lambda: read_labels(path), path)
    result_or_message(lambda: read_classes(path), path)


@HARD
@given(rows=st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4))
def test_tables_of_any_text_come_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([("image", "classes"), *rows])
    (tmp_path / "labels.csv").write_text(
        text.getvalue(), encoding="utf-8", errors="replace", newline=""
    )
    kept = [row for row in rows if any(cell.strip() for cell in row)]
    found = result_or_message(lambda: read_labels(tmp_path / "labels.csv"), tmp_path / "labels.csv")
    assert found is None or len(found) == len(kept)


@HARD
@given(data=st.data())
def test_harmed_pickles_of_tags(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "cls_labels.npy"
    np.save(path, {"a": np.ones(2, np.float32)})
    path.write_bytes(data.draw(harmed(path.read_bytes())))
    result_or_message(lambda: read_multihot(path, ("cat", "dog")), path)


@HARD
@given(
    name=st.text(max_size=20)
    | st.lists(st.sampled_from(["..", ".", "", "a", "~", "C:", "\\"]), max_size=5).map("/".join)
)
def test_an_id_without_complaint_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    if complain_of_id(name) is None:
        path = tmp_path / f"{name}.png"
        assert path.resolve().is_relative_to(tmp_path.resolve())
    if complain_of_split(name) is None:
        assert (tmp_path / name).resolve().parent == tmp_path.resolve()


@HARD
@given(
    data=harmed(b'{"cams": {"miou": 0.5, "coverage": null}}')
    | json_values.map(lambda v: json.dumps({"cams": v}).encode())
)
def test_harmed_scores(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "cams.json"
    path.write_bytes(data)
    found = result_or_message(lambda: _scores_of(path, "cams"), path)
    assert found is None or all(isinstance(value, float) for value in found.values())
