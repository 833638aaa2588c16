"""Tags from `cls_labels.npy`, the pickled table that much code on VOC ships, without running what a pickle
asks for."""

import pickle
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray
from numpy._core.numeric import _frombuffer  # type: ignore[attr-defined]
from numpy.lib import format as npy

from pipeline.datasets.problems import DatasetError, error

MAX_BYTES = 256 * 2**20


def read_multihot(path: Path, classes: Sequence[str]) -> dict[str, frozenset[str]]:
    """Class names by picture id from a 0-d object array holding {id: float [C]}; ids 2007000032 become
    2007_000032.

    Raises DatasetError for anything else, in particular for a pickle that names more than numpy's arrays.
    """
    try:
        return {_identify(key): _names(row, classes) for key, row in _load(path).items()}
    except Exception as problem:  # a hostile or damaged pickle may raise anything
        what = f"is no table of VOC tags ({problem})"
        raise DatasetError(error(path, what, "use labels.csv or Annotations/*.xml instead")) from problem


def _load(path: Path) -> dict[Any, np.ndarray]:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    stream = BytesIO(path.read_bytes())
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    shape, _, dtype = readers[npy.read_magic(stream)](stream)
    if shape != () or dtype != np.dtype(object):
        raise ValueError(f"array of {dtype} {shape}, not one object")
    loaded = _ArrayUnpickler(stream).load()
    table = loaded.item() if isinstance(loaded, np.ndarray) else loaded
    if not isinstance(table, dict):
        raise ValueError(f"a {type(table).__name__}, not a dict")
    return table


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds numpy arrays, scalars and dtypes, and refuses every other global."""

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle asks for; raises UnpicklingError unless arrays are made of it."""
        place = (module.replace("numpy.core.", "numpy._core."), name)
        if place not in _admitted():
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return _admitted()[place]


def _admitted() -> dict[tuple[str, str], Any]:
    """What pickled arrays of all numpy versions and pickle protocols call."""
    return {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy._core.multiarray", "_reconstruct"): multiarray._reconstruct,
        ("numpy._core.multiarray", "scalar"): multiarray.scalar,
        ("numpy._core.numeric", "_frombuffer"): _frombuffer,
        ("_codecs", "encode"): _encode_latin1,
    }


def _encode_latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 spells bytes; `_codecs.encode` itself would import a codec of any name."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}, which is refused")
    return text.encode("latin1")


def _identify(key: Any) -> str:
    if isinstance(key, str):
        return key
    year, number = divmod(int(key), 1_000_000)
    return f"{year:04d}_{number:06d}"


def _names(row: Any, classes: Sequence[str]) -> frozenset[str]:
    if np.shape(row) != (len(classes),):
        raise ValueError(f"a row of shape {np.shape(row)} for {len(classes)} classes")
    values = np.asarray(row, np.float32)
    return frozenset(name for name, value in zip(classes, values, strict=True) if value > 0)
