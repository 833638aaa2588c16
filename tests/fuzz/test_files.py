"""Damaged files of every kind end in a result, or in a message that names the file."""

import io
import json
import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save
from torch import nn

from pipeline.core.artifacts import LAYOUTS, ArtifactError, Reader, Writer, escape, merge
from pipeline.core.loss_log import LossLog
from pipeline.core.trainer import _load, _save
from pipeline.core.weights import (
    KEY,
    WeightsError,
    load_checkpoint,
    load_network,
    load_weights,
    save_weights,
)
from pipeline.data.images import read_image
from pipeline.data.index import HEADER, TABLE, ImageEntry, Index
from pipeline.data.masks import read_values, to_labels
from pipeline.errors import UserError
from pipeline.export import labelme, labelstudio
from pipeline.params import presets
from pipeline.readers.hints import read_hints, render
from pipeline.readers.layout import layout_of, read_source
from pipeline.readers.outlines import rasterize
from pipeline.readers.source import Render, problem_of_id, problem_of_split
from pipeline.readers.tables import read_classes, read_labels
from pipeline.readers.voc import read_multihot, read_objects
from pipeline.views.inspect import describe_checkpoint
from stages._command import read_parameters
from stages.cli.main import _scores_of
from tests.support.harm import HARD, changed, harmed, json_values, result_or_message

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore::UserWarning:PIL")]
CPU = torch.device("cpu")
HEADER_OF_WEIGHTS = {
    "kind": "classifier",
    "version": 1,
    "classes": ["cat"],
    "options": {"width": 2},
}


def as_json(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return values.map(lambda value: json.dumps(value).encode())


def result_or_value_error(work: Callable[[], Any]) -> Any:
    """Return the result, or the text of a ValueError; let no other error through."""
    try:
        return work()
    except ValueError as error:
        message = str(error)
    assert message
    return message


# Artifacts


def artifact(path: Path, format_: str = "cams") -> Path:
    """An artifact of three images of 4 x 4."""
    layout = LAYOUTS[format_]
    wanted = {**layout.datasets, **layout.attributes}
    record = {key: np.ones((4,) * rank, dtype) for key, (dtype, rank) in wanted.items()}
    with Writer(path, format_, ("cat", "dog"), ["left out"]) as writer:
        for name in ("a one", "b/two", "c%"):
            writer.write(name, record)
    return path


def read_all(path: Path) -> dict[str, dict[str, np.ndarray]]:
    with closing(Reader(path)) as reader:
        return {name: dict(reader[name]) for name in reader}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of an artifact of every layout."""
    folder = tmp_path_factory.mktemp("sound")
    return {name: artifact(folder / f"{name}.h5", name).read_bytes() for name in LAYOUTS}


@HARD
@given(data=st.data(), format_=st.sampled_from(sorted(LAYOUTS)))
def test_harmed_artifacts(
    tmp_path: Path, sound: dict[str, bytes], data: st.DataObject, format_: str
) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(data.draw(harmed(sound[format_])))
    found = result_or_message(lambda: read_all(path), path)
    for record in (found or {}).values():
        assert record.keys() == {*LAYOUTS[format_].datasets, *LAYOUTS[format_].attributes}
    if found is not None:
        merge([path], tmp_path / "merged.h5", format_, ("cat", "dog"))


@HARD
@given(
    attribute=st.sampled_from(["format", "version", "classes", "skipped", "complete"]),
    value=st.one_of(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
        st.integers(-(2**31), 2**31),
        st.floats(),
        st.lists(st.integers(0, 9), min_size=1, max_size=3),
        st.sampled_from(["weakmask/novel", "[1]", "{}", "[[]]", "[" * 9999]),
    ),
)
def test_attributes_of_other_kinds(
    tmp_path: Path, sound: dict[str, bytes], attribute: str, value: object
) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(sound["cams"])
    with h5py.File(path, "a") as file:
        file.attrs[attribute] = value
    result_or_message(lambda: read_all(path), path)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (None, ""),  # a group
        ({"data": "text"}, "cams is object"),
        ({"data": np.ones((4, 4), "f2")}, "cams is float16"),
        ({"data": np.ones((4, 4, 4), "f2"), "chunks": (1, 4, 4)}, "cams is not a single chunk"),
    ],
)
def test_items_of_another_kind_are_refused(
    tmp_path: Path, made: dict[str, Any] | None, words: str
) -> None:
    path = artifact(tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        group, kept = file["cams"], dict(file["cams/a one"].attrs)
        del group["a one"]
        if made is None:
            group.create_group("a one")
        else:
            group.create_dataset("a one", **made)
        group["a one"].attrs.update(kept)
    with closing(Reader(path)) as reader:
        for read in (
            lambda: reader["a one"],
            lambda: reader.array("a one", "cams"),
            lambda: merge([path], tmp_path / "merged.h5", "cams", ("cat", "dog")),
        ):
            with pytest.raises(ArtifactError, match=rf"x\.h5: 'a one' is damaged \(.*{words}"):
                read()
    assert not (tmp_path / "merged.h5").exists()


@HARD
@given(
    name=st.text(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60
    )
)
def test_ids_come_back_whatever_they_hold(tmp_path: Path, name: str) -> None:
    assert "/" not in escape(name)
    assert not escape(name).startswith(".")
    path = tmp_path / "x.h5"
    with Writer(path, "seeds", ("cat",)) as writer:
        writer.write(name, {"seeds": np.full((2, 2), 7, np.uint8)})
    assert read_all(path)[name]["seeds"].tolist() == [[7, 7], [7, 7]]
    assert [file.name for file in tmp_path.iterdir()] == ["x.h5"]


# Weights and checkpoints


def build(header: Mapping[str, Any]) -> nn.Module:
    width = header["options"]["width"]
    if not 0 < width < 64:
        raise ValueError(f"width {width}")
    return nn.Linear(width, len(header["classes"]) + 2)


def load(path: Path) -> nn.Module:
    return load_network(path, "classifier", build, CPU)


def weights(path: Path) -> None:
    save_weights(path, nn.Linear(2, 3), **HEADER_OF_WEIGHTS)  # type: ignore[arg-type]


def test_weights_that_name_more_than_they_hold(tmp_path: Path) -> None:
    tensor = {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    header, path = json.dumps(tensor).encode(), tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match=r"x\.safetensors: not a readable .*; copy it again"):
        load_weights(path, "classifier")


def training() -> tuple[nn.Module, torch.optim.Optimizer, LossLog]:
    net = nn.Linear(2, 3)
    losses = LossLog("classifier", 10, rows=[{"step": 1, "loss": 0.5}])
    return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), losses


def resume(path: Path) -> int:
    return _load(path, *training())


class Hostile:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize(
    "write", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))]
)
@pytest.mark.parametrize(
    "load", [load_checkpoint, resume, lambda path: list(describe_checkpoint(path))]
)
def test_a_pickle_is_never_run(
    tmp_path: Path, write: Callable[[object, Path], None], load: Callable[[Path], object]
) -> None:
    path = tmp_path / "checkpoint.pt"
    write({"step": Hostile(tmp_path / "made")}, path)
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        load(path)
    assert not (tmp_path / "made").exists()


# Images and masks


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


PNGS = [encoded(mode, "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")]
IMAGES = [
    *PNGS,
    *(encoded(mode, "JPEG") for mode in ("RGB", "L", "CMYK")),
    *(encoded(mode, "WEBP") for mode in ("RGB", "RGBA")),
]


def check_image(path: Path) -> None:
    image = read_image(path)
    assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)


def check_mask(path: Path) -> None:
    values = read_values(path)
    assert values.dtype in (np.uint8, np.uint16)
    assert to_labels(values, {0: 0, 1: 1, 255: 255}, path).shape == values.shape


# Sources, parameters and scores

XML = b"<annotation><object><name>cat</name><part><name>head</name></part></object></annotation>"
TAGS = 'image,classes,split\na,cat;dog,train\n"b, c",Hündin,val\n'.encode()
COCO = {
    "images": [{"id": 7, "file_name": "a.png", "height": 12, "width": 16}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[2, 1, 8, 1, 8, 6]]}
    ],
    "categories": [{"id": 3, "name": "cat"}],
}
PLACE = {"image_id": 7, "category_id": 3, "score": 0.5, "bbox": [0, 0, 9, 9]}
SAID = COCO | {"annotations": [*COCO["annotations"], PLACE, PLACE | {"keypoints": [3, 3, 2]}]}
REGION = {"type": "brushlabels", "original_width": 16, "original_height": 12}
CORNERS = [[10, 10], [60, 10], [60, 80]]
TASKS = [
    {
        "data": {"image": "/data/upload/1/0123abcd-a.png"},
        "annotations": [
            {
                "result": [
                    {
                        **REGION,
                        "value": {
                            "brushlabels": ["cat"],
                            "rle": labelstudio.pack(np.eye(12, 16, dtype=bool)),
                        },
                    },
                    {
                        **REGION,
                        "type": "polygonlabels",
                        "value": {"polygonlabels": ["dog"], "points": CORNERS},
                    },
                ]
            }
        ],
    }
]
LABELME = {
    "imageHeight": 12,
    "imageWidth": 16,
    "shapes": [
        {"label": name, "points": [[2, 1], [8, 1], [8, 6]], "group_id": 1, "shape_type": "polygon"}
        for name in ("cat", "_background_", "dog")
    ],
}


def index_of(folder: Path) -> Index:
    one = partial(ImageEntry, height=12, width=16, split="train", tags=(0,), digest="0" * 32)
    images = [one(n, f"images/{n}.png", semantic="masks/a.png", instances=None) for n in "ab"]
    return Index(("cat", "dog"), images, folder, folder, {0: 0, 1: 1, 2: 2, 255: 255})


def saved_index(path: Path) -> None:
    index_of(path.parent).save(path.parent)


def check_index(path: Path) -> None:
    assert Index.load(path.parent) == index_of(path.parent)


def check_tags(path: Path) -> None:
    result_or_message(lambda: read_labels(path), path)
    read_classes(path)


def check_objects(path: Path) -> None:
    assert all(isinstance(name, str) for name in read_objects(path))


def check_coco(path: Path) -> None:
    root = path.parents[1]
    (root / "train").mkdir(exist_ok=True)
    entries = read_source(root, layout_of("coco", root, None, None)).entries
    check_rendered((entry.id, entry.render) for entry in entries if entry.render is not None)


def check_hints(path: Path) -> None:
    index = index_of(path.parents[1])
    for name, hints in read_hints(path.parents[1], index).images.items():
        assert render(hints, index, name, None)["pixels"].shape == (12, 16)


def check_rendered(found: Iterable[tuple[str, Render]]) -> None:
    for _, renderer in found:
        masks = result_or_value_error(partial(renderer, {"cat": 1}, (12, 16)))
        assert isinstance(masks, str) or masks[0].shape == masks[1].shape == (12, 16)


def check_scores(path: Path) -> None:
    assert all(isinstance(value, float) for value in _scores_of(path, "cams").values())


def check_checkpoint(path: Path) -> None:
    result_or_message(lambda: resume(path), path)
    list(describe_checkpoint(path))


def written(write: Callable[[Path], object], tmp: Path) -> bytes:
    write(tmp)
    return tmp.read_bytes()


Damage = Callable[[Path], st.SearchStrategy[bytes]]
FILES: dict[str, tuple[Damage, Callable[[Path], object]]] = {
    "mine.yaml": (
        lambda _: (
            harmed(presets.text("folder").encode()) | as_json(changed(presets.load("folder")))
        ),
        read_parameters,
    ),
    HEADER: (
        lambda path: (
            harmed(written(saved_index, path)) | as_json(changed(json.loads(path.read_text())))
        ),
        check_index,
    ),
    TABLE: (lambda path: harmed(written(saved_index, path)), check_index),
    "image.png": (lambda _: st.sampled_from(IMAGES).flatmap(harmed), check_image),
    "mask.png": (lambda _: st.sampled_from(PNGS).flatmap(harmed), check_mask),
    "labels.csv": (lambda _: harmed(TAGS), check_tags),
    "a.xml": (lambda _: harmed(XML), check_objects),
    "annotations/instances_train.json": (
        lambda _: harmed(json.dumps(COCO).encode()) | as_json(changed(COCO)),
        check_coco,
    ),
    "hints/a.png": (lambda _: st.sampled_from(PNGS).flatmap(harmed), check_hints),
    "hints/a.json": (
        lambda _: harmed(json.dumps(SAID).encode()) | as_json(changed(SAID)),
        check_hints,
    ),
    "hints/a.csv": (lambda _: harmed(b"image,class,x,y,stroke\na,cat,1,2,s\n"), check_hints),
    "tasks.json": (
        lambda _: harmed(json.dumps(TASKS).encode()) | as_json(changed(TASKS)),
        lambda path: check_rendered(labelstudio.read(path)),
    ),
    "labelme.json": (
        lambda _: harmed(json.dumps(LABELME).encode()) | as_json(changed(LABELME)),
        lambda path: check_rendered([("a", labelme.read(path))]),
    ),
    "cls_labels.npy": (
        lambda path: harmed(
            written(lambda p: np.save(p, np.array({"a": np.ones(2, "f4")}, object)), path)
        ),
        lambda path: read_multihot(path, ("cat", "dog")),
    ),
    "cams.json": (
        lambda _: (
            harmed(b'{"cams": {"miou": 0.5, "coverage": null}}')
            | as_json(json_values.map(lambda value: {"cams": value}))
        ),
        check_scores,
    ),
    "x.safetensors": (
        lambda path: (
            harmed(written(weights, path))
            | changed(HEADER_OF_WEIGHTS).map(
                lambda header: save(nn.Linear(2, 3).state_dict(), {KEY: json.dumps(header)})
            )
        ),
        load,
    ),
    "checkpoint.pt": (
        lambda path: (
            harmed(written(lambda p: _save(p, 1, *training()), path))
            | changed(
                {
                    "step": 1,
                    "network": {},
                    "optimizer": {},
                    "curve": {"rows": [], "sums": {}, "count": 0},
                }
            ).map(lambda state: written(partial(torch.save, state), path))
        ),
        check_checkpoint,
    ),
}
"""File -> damaged contents, and what reads it."""


@pytest.mark.parametrize("name", FILES)
def test_harmed_files(tmp_path: Path, name: str) -> None:
    damage, read = FILES[name]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)

    @HARD
    @given(data=damage(path))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        result_or_message(lambda: read(path), path.parent if name in (HEADER, TABLE) else path)

    check()


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
