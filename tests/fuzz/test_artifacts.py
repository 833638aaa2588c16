"""Damaged artifacts, weights and checkpoints give a result or a message that names the file."""

import json
import os
import pickle
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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
from pipeline.errors import UserError
from pipeline.views.inspect import describe_checkpoint
from tests.support.harm import HARD, changed, harmed, result_or_message

pytestmark = pytest.mark.timeout(60)
NAMES = ("a one", "b/two", "c%")
KINDS = st.sampled_from(sorted(LAYOUTS))


def artifact(path: Path, format_: str = "cams") -> Path:
    """An artifact of three images of 4 x 4."""
    layout = LAYOUTS[format_]
    wanted = {**layout.datasets, **layout.attributes}
    with Writer(path, format_, ("cat", "dog"), ["left out"]) as writer:
        for name in NAMES:
            writer.write(
                name, {key: np.ones((4,) * rank, dtype) for key, (dtype, rank) in wanted.items()}
            )
    return path


def read_all(path: Path) -> dict[str, dict[str, np.ndarray]]:
    with closing(Reader(path)) as reader:
        return {name: dict(reader[name]) for name in reader}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of an artifact of every layout."""
    folder = tmp_path_factory.mktemp("sound")
    return {
        format_: artifact(folder / f"{format_}.h5", format_).read_bytes() for format_ in LAYOUTS
    }


@HARD
@given(data=st.data())
def test_harmed_artifacts(tmp_path: Path, sound: dict[str, bytes], data: st.DataObject) -> None:
    path = tmp_path / "x.h5"
    format_ = data.draw(KINDS)
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


def _group(file: h5py.File) -> None:
    file["cams"].create_group("a one")


def _other_type(file: h5py.File) -> None:
    file["cams"].create_dataset("a one", data="text")


def _other_rank(file: h5py.File) -> None:
    file["cams"].create_dataset("a one", data=np.ones((4, 4), "f2"))


def _other_chunks(file: h5py.File) -> None:
    file["cams"].create_dataset("a one", data=np.ones((4, 4, 4), "f2"), chunks=(1, 4, 4))


@pytest.mark.parametrize(
    ("put", "words"),
    [
        (_group, ""),
        (_other_type, "cams is object"),
        (_other_rank, "cams is float16"),
        (_other_chunks, "cams is not a single chunk"),
    ],
)
def test_items_of_another_kind_are_refused(
    tmp_path: Path, put: Callable[[h5py.File], None], words: str
) -> None:
    path = artifact(tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        kept = dict(file["cams/a one"].attrs)
        del file["cams/a one"]
        put(file)
        file["cams/a one"].attrs.update(kept)
    with closing(Reader(path)) as reader:
        for read in (reader.__getitem__, lambda name: reader.array(name, "cams")):
            with pytest.raises(ArtifactError, match=rf"x\.h5: 'a one' is damaged \(.*{words}"):
                read("a one")
    with pytest.raises(ArtifactError, match=rf"x\.h5: 'a one' is damaged \(.*{words}"):
        merge([path], tmp_path / "merged.h5", "cams", ("cat", "dog"))
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


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 3)


@HARD
@given(data=st.data())
def test_harmed_weights(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.safetensors"
    save_weights(path, network(), "classifier", classes=["cat"])
    path.write_bytes(data.draw(harmed(path.read_bytes())))
    load = lambda: load_network(path, "classifier", lambda header: network(), torch.device("cpu"))  # noqa: E731
    result_or_message(load, path)


@HARD
@given(data=st.data())
def test_headers_of_weights_of_other_kinds(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.safetensors"
    header = {"kind": "classifier", "version": 1, "classes": ["cat"], "options": {"width": 2}}
    text = json.dumps(data.draw(changed(header)))
    path.write_bytes(save(network().state_dict(), {KEY: text}))

    def build(given: Mapping[str, Any]) -> nn.Module:
        width = given["options"]["width"]
        if not 0 < width < 64:
            raise ValueError(f"width {width}")
        return nn.Linear(width, len(given["classes"]) + 2)

    result_or_message(lambda: load_network(path, "classifier", build, torch.device("cpu")), path)


def test_weights_that_name_more_than_they_hold(tmp_path: Path) -> None:
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match=r"x\.safetensors: not a readable safetensors file"):
        load_weights(path, "classifier")


def checkpoint(path: Path) -> bytes:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = LossLog("classifier", 10)
    losses.rows = [{"step": 1, "loss": 0.5}]
    _save(path, 1, net, optimizer, losses)
    return path.read_bytes()


def resume(path: Path) -> int:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    return _load(path, net, optimizer, LossLog("classifier", 10))


@HARD
@given(data=st.data())
def test_harmed_checkpoints(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(data.draw(harmed(checkpoint(path))))
    result_or_message(lambda: resume(path), path)
    result_or_message(lambda: list(describe_checkpoint(path)), path)


@HARD
@given(
    state=changed(
        {"step": 1, "network": {}, "optimizer": {}, "curve": {"rows": [], "sums": {}, "count": 0}}
    )
)
def test_checkpoints_of_other_content(tmp_path: Path, state: object) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(state, path)
    result_or_message(lambda: resume(path), path)
    result_or_message(lambda: list(describe_checkpoint(path)), path)


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
