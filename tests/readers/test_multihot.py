"""The pickled VOC tags are read, whatever numpy wrote them, and a pickle that asks for more is
refused.
"""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.problems import DatasetError
from pipeline.readers.folder import read_multihot

CLASSES = ("cat", "dog", "cow")
TABLE = {
    np.int32(2007000032): np.array([1, 0, 1], np.float32),
    np.int32(2011003276): np.array([0, 0, 0], np.float32),
}
TAGS = {"2007_000032": {"cat", "cow"}, "2011_003276": frozenset()}


def npy(path: Path, payload: bytes, shape: tuple[int, ...] = (), descr: str = "|O") -> Path:
    """A .npy file with any pickle behind its header."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    path.write_bytes(stream.getvalue() + payload)
    return path


def test_as_numpy_saves_it(tmp_path: Path) -> None:
    np.save(tmp_path / "cls_labels.npy", TABLE)
    assert read_multihot(tmp_path / "cls_labels.npy", CLASSES) == TAGS


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("old", [False, True])
def test_every_protocol_and_the_old_module_names(tmp_path: Path, protocol: int, old: bool) -> None:
    payload = pickle.dumps(np.array(TABLE, object), protocol)
    if old and protocol < 4:  # from 4 on, names carry their length
        payload = payload.replace(b"numpy._core", b"numpy.core")
    assert read_multihot(npy(tmp_path / "x.npy", payload), CLASSES) == TAGS


def test_names_as_keys(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", {"2007_000032": np.array([0, 1, 0])})
    assert read_multihot(tmp_path / "x.npy", CLASSES) == {"2007_000032": {"dog"}}


class Attack:
    """Pickles to a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize(
    "attack",
    [
        Attack(os.system, "touch {marker}"),
        Attack(eval, "open({marker!r}, 'w')"),
        Attack(getattr, np, "load"),
        Attack(np.load, "{marker}"),
    ],
)
@pytest.mark.parametrize(
    "wrap", [lambda a: a, lambda a: {1: a}, lambda a: np.array({1: a}, object)]
)
def test_a_hostile_pickle_does_not_run(tmp_path: Path, attack: Attack, wrap: object) -> None:
    marker = str(tmp_path / "ran")
    function, arguments = attack.call
    told = Attack(
        function, *(a.format(marker=marker) if isinstance(a, str) else a for a in arguments)
    )
    try:
        payload = pickle.dumps(wrap(told), 3)
    except TypeError:  # a module among the arguments cannot be pickled; the name alone is enough
        payload = b"c" + f"{function.__module__}\n{function.__name__}\n".encode() + b"."
    with pytest.raises(DatasetError, match="which is refused"):
        read_multihot(npy(tmp_path / "x.npy", payload), CLASSES)
    assert not Path(marker).exists()


def test_no_codec_but_latin1(tmp_path: Path) -> None:
    payload = b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R."
    with pytest.raises(DatasetError, match="the codec rot13, which is refused"):
        read_multihot(npy(tmp_path / "x.npy", payload), CLASSES)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([1, 2], "not one object"),
        (np.array([1.0]), "not one object"),
        ("text", "not one object"),
        ({1: np.zeros(4)}, r"a row of shape \(4,\) for 3 classes"),
    ],
)
def test_other_content_is_an_error(tmp_path: Path, table: object, message: str) -> None:
    np.save(tmp_path / "x.npy", table)
    with pytest.raises(DatasetError, match=rf"x\.npy: is no table of VOC tags \(.*{message}"):
        read_multihot(tmp_path / "x.npy", CLASSES)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_a_damaged_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DatasetError, match="is no table of VOC tags"):
        read_multihot(tmp_path / "x.npy", CLASSES)
