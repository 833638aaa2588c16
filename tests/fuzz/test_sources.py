"""Damaged parameters, images, indices, tables and annotations end in a result or in a message."""

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.images import read_image
from pipeline.data.index import HEADER, TABLE, ImageEntry, Index
from pipeline.data.masks import read_values, to_labels
from pipeline.errors import UserError
from pipeline.params import parse, presets
from pipeline.readers.layout import layout_of, read_source
from pipeline.readers.outlines import rasterize
from pipeline.readers.source import problem_of_id, problem_of_split
from pipeline.readers.tables import read_classes, read_labels
from pipeline.readers.voc import read_multihot, read_objects
from stages._command import read_parameters
from stages.cli.main import _scores_of
from tests.support.harm import HARD, changed, harmed, json_values, result_or_message

pytestmark = [pytest.mark.timeout(60), pytest.mark.filterwarnings("ignore::UserWarning:PIL")]
XML = b"<annotation><object><name>cat</name><part><name>head</name></part></object></annotation>"
COCO = {
    "images": [{"id": 7, "file_name": "a.png", "height": 12, "width": 16}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[2, 1, 8, 1, 8, 6]]}
    ],
    "categories": [{"id": 3, "name": "cat"}],
}


def result_or_value_error(work: Callable[[], Any]) -> Any:
    """Return the result, or the text of a ValueError; let no other error through."""
    try:
        return work()
    except ValueError as error:
        message = str(error)
    assert message
    return message


@HARD
@given(data=harmed(presets.text("folder").encode()))
def test_harmed_parameters(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(data)
    result_or_message(lambda: read_parameters(path), path)


@HARD
@given(values=changed(presets.load("folder")))
def test_parameters_of_other_types(values: Any) -> None:
    result_or_message(lambda: parse(values, "mine.yaml"), "mine.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: !!python/object/apply:os.mkdir [made]", "could not determine a constructor"),
        ("a: \0", "not valid YAML"),
        ("", "must hold sections"),
        ("1: 2\nnull: 3", "mine.yaml is not valid"),
    ],
)
def test_parameters_that_are_no_sections(
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


def saved_index(path: Path) -> Index:
    images = [
        ImageEntry(name, f"images/{name}.png", 12, 16, "train", (0,), "masks/a.png", None, "0" * 32)
        for name in "ab"
    ]
    whole = Index(("cat", "dog"), images, path, path, {0: 0, 1: 1, 2: 2, 255: 255})
    whole.save(path)
    return whole


@HARD
@given(data=st.data(), file=st.sampled_from([HEADER, TABLE]))
def test_harmed_indices(tmp_path: Path, data: st.DataObject, file: str) -> None:
    whole = saved_index(tmp_path)
    path = tmp_path / file
    damage = harmed(path.read_bytes())
    if file == HEADER:
        damage |= changed(json.loads(path.read_text())).map(lambda v: json.dumps(v).encode())
    path.write_bytes(data.draw(damage))
    found = result_or_message(lambda: Index.load(tmp_path), tmp_path)
    assert found is None or found == whole


@HARD
@given(data=harmed(XML))
def test_harmed_annotations(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(data)
    found = result_or_message(lambda: read_objects(path), path)
    assert found is None or all(isinstance(name, str) for name in found)


@HARD
@given(data=harmed(json.dumps(COCO).encode()) | changed(COCO).map(lambda v: json.dumps(v).encode()))
def test_harmed_instances_of_coco(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "train").mkdir(exist_ok=True)
    path = tmp_path / "annotations/instances_train.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    source = result_or_message(
        lambda: read_source(tmp_path, layout_of("coco", tmp_path, None, None)), path
    )
    for entry in source.entries if source else ():
        if entry.render is not None:
            render = partial(entry.render, {"cat": 1}, (12, 16))
            masks = result_or_value_error(render)
            assert isinstance(masks, str) or masks[0].shape == masks[1].shape == (12, 16)


@HARD
@given(
    segmentation=json_values
    | changed({"size": [12, 16], "counts": [100, 92]})
    | changed({"size": [12, 16], "counts": "T3l2"})
    | st.text(max_size=6).map(lambda text: {"size": [12, 16], "counts": text})
    | st.lists(st.lists(st.floats() | st.integers(), max_size=8), max_size=3)
)
def test_outlines_of_all_types(segmentation: Any) -> None:
    found = result_or_value_error(lambda: rasterize(segmentation, (12, 16)))
    assert isinstance(found, str) or found.shape == (12, 16)


@HARD
@given(data=harmed('image,classes,split\na,cat;dog,train\n"b, c",Hündin,val\n'.encode()))
def test_harmed_tables(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(data)
    result_or_message(lambda: read_labels(path), path)
    result_or_message(lambda: read_classes(path), path)


@HARD
@given(data=st.data())
def test_harmed_pickles_of_tags(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "cls_labels.npy"
    np.save(path, np.array({"a": np.ones(2, np.float32)}, object))
    path.write_bytes(data.draw(harmed(path.read_bytes())))
    result_or_message(lambda: read_multihot(path, ("cat", "dog")), path)


@HARD
@given(
    name=st.text(max_size=20)
    | st.lists(st.sampled_from(["..", ".", "", "a", "~", "C:", "\\"]), max_size=5).map("/".join)
)
def test_a_valid_id_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    if problem_of_id(name) is None:
        path = tmp_path / f"{name}.png"
        assert path.resolve().is_relative_to(tmp_path.resolve())
    if problem_of_split(name) is None:
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


def encoded(mode: str, format_: str) -> bytes:
    """An image of 9 x 7 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, format=format_, exif=exif)
    return stream.getvalue()


SOUND = [
    *(encoded(mode, "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    *(encoded(mode, "JPEG") for mode in ("RGB", "L", "CMYK")),
    *(encoded(mode, "WEBP") for mode in ("RGB", "RGBA")),
]


@HARD
@given(data=st.sampled_from(SOUND).flatmap(harmed))
def test_harmed_images(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    found = result_or_message(lambda: read_image(path), path)
    assert found is None or (found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3)


@HARD
@given(data=st.sampled_from(SOUND[:7]).flatmap(harmed))
def test_harmed_masks(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    found = result_or_message(lambda: read_values(path), path)
    if found is not None:
        assert found.dtype in (np.uint8, np.uint16)
        labels = result_or_message(lambda: to_labels(found, {0: 0, 1: 1, 255: 255}, path), path)
        assert labels is None or labels.shape == found.shape
