"""The HDF5 artifacts: one writer, one reader, one table of layouts.

Root attributes `format`, `version`, `classes`, `skipped`, `complete`; dataset `names` with the
sorted ids of all images; one dataset per image and array, chunk = the whole item, gzip 1 + shuffle,
so that every HDF5 tool reads it. Equal content gives equal bytes.

Label maps: uint8 [H,W], 0 background, c + 1 class c (0-based), IGNORE where nothing is known or
counted.
"""

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from pipeline.core.resume import writing
from pipeline.errors import UserError

Record = Mapping[str, np.ndarray]
MOST_PACKED = 1100
"""Bytes that one byte of a file can stand for; gzip reaches 1032."""


class ArtifactError(UserError):
    """An artifact is missing, damaged, incomplete or of another kind; the message names the file
    and what to do.
    """


@dataclass(frozen=True, slots=True)
class Layout:
    """What an artifact holds per image: datasets and attributes by name, each with dtype and rank."""

    version: int
    datasets: Mapping[str, tuple[str, int]]
    attributes: Mapping[str, tuple[str, int]] = field(default_factory=dict)


LAYOUTS: Mapping[str, Layout] = {
    "segments": Layout(
        1,
        {"embeddings": ("f2", 3), "segments": ("u2", 2)},
        {"stability": ("f4", 1), "iou": ("f4", 1)},
    ),
    "cams": Layout(1, {"cams": ("f2", 3)}, {"labels": ("u1", 1), "size": ("i4", 1)}),
    "seeds": Layout(1, {"seeds": ("u1", 2)}),
    "fields": Layout(1, {"boundary": ("f2", 2), "displacement": ("f2", 3)}),
    "walk": Layout(1, {"maps": ("f2", 3)}, {"classes": ("u1", 1), "size": ("i4", 1)}),
    "labels": Layout(
        1,
        {"semantic": ("u1", 2), "instances": ("u2", 2)},
        {"classes": ("u1", 1), "scores": ("f4", 1)},
    ),
    "predictions": Layout(
        2,
        {"semantic": ("u1", 2), "instances": ("u1", 3)},
        {"classes": ("u1", 1), "scores": ("f4", 1)},
    ),
}


def escape(name: str) -> str:
    """The HDF5 link name of an image id: `/`, `%` and a leading dot are written as %XX, all else
    stays readable.
    """
    name = name.replace("%", "%25").replace("/", "%2F")
    return "%2E" + name[1:] if name.startswith(".") else name


class Writer:
    """Writes one artifact to `<path>.part` and renames it when whole; a context manager.

    Names must come in sorted order. `skipped` names images that are left out on purpose.
    Raises ArtifactError for an item that does not fit the layout.
    """

    def __init__(
        self, path: Path, format_: str, classes: Sequence[str], skipped: Sequence[str] = ()
    ) -> None:
        self.path, self.format, self.layout = path, format_, LAYOUTS[format_]
        self.part = path.with_name(path.name + ".part")
        self._names: list[str] = []
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = h5py.File(self.part, "w", libver="v108", track_order=False)
            self._file.attrs["format"] = f"weakmask/{format_}"
            self._file.attrs["version"] = self.layout.version
            self._file.attrs["classes"] = json.dumps(list(classes), ensure_ascii=False)
            self._file.attrs["skipped"] = json.dumps(sorted(skipped), ensure_ascii=False)
            self._groups = {name: self._file.create_group(name) for name in self.layout.datasets}

    def write(self, name: str, record: Record) -> None:
        """Append the image `name`; arrays are cast to the layout's dtypes."""
        if self._names and name <= self._names[-1]:
            raise ArtifactError(
                f"{self.path}: {name!r} after {self._names[-1]!r}; names must come sorted and once"
            )
        try:
            arrays = validate_record(self.format, record)
        except ArtifactError as error:
            raise ArtifactError(f"{self.path}: {name!r}: {error}") from error
        with writing(self.path):
            for key in self.layout.datasets:
                self._write_array(key, name, arrays[key])
            self._attributes(name, arrays)

    def copy(self, reader: "Reader", name: str) -> None:
        """Append an image of another artifact of the same layout without decoding its compressed
        bytes.

        Step by step as `write` does it: HDF5's own copy of objects lays the file out in another
        way.
        """
        for key in self.layout.datasets:
            source = reader.stored(name, key)
            with writing(self.path):
                self._copy_chunk(key, name, source)
        with writing(self.path):
            self._attributes(name, source.attrs)

    # The next two let go of the data set when they return: HDF5 gives a chunk its place when the
    # data set is closed, and the place must not depend on the way that the chunk came.

    def _write_array(self, key: str, name: str, array: np.ndarray) -> None:
        dataset = self._create(key, name, array.shape, array.dtype)
        if array.size:
            dataset[()] = array
            _write_out(dataset)

    def _copy_chunk(self, key: str, name: str, source: h5py.Dataset) -> None:
        dataset = self._create(key, name, source.shape, source.dtype)
        if source.size:
            filters, chunk = source.id.read_direct_chunk((0,) * source.ndim)
            dataset.id.write_direct_chunk((0,) * source.ndim, chunk, filters)
            _write_out(dataset)

    def _create(
        self, key: str, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> h5py.Dataset:
        whole = {"chunks": shape, "compression": "gzip", "compression_opts": 1, "shuffle": True}
        options = whole if 0 not in shape else {}
        return self._groups[key].create_dataset(
            escape(name), shape, dtype, track_times=False, **options
        )

    def _attributes(self, name: str, values: Record) -> None:
        last = self._groups[list(self.layout.datasets)[-1]][escape(name)]
        for key in self.layout.attributes:
            last.attrs[key] = values[key]
        self._names.append(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                with writing(self.path):
                    self._finish()
        finally:
            if self._file:
                _let_go(self._file)
                with suppress(OSError, RuntimeError):
                    self._file.close()
            self.part.unlink(missing_ok=True)

    def _finish(self) -> None:
        encoded = [name.encode() for name in self._names]
        width = max(map(len, encoded), default=1)
        self._file.create_dataset(
            "names", data=np.array(encoded, dtype=f"S{width}"), track_times=False
        )
        self._file.attrs["complete"] = True
        _write_out(self._file)
        self._file.close()
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.path)


class Reader(Mapping[str, Record]):
    """Reads one artifact as a mapping of image id to its arrays; opened lazily and once per
    process, so it may be pickled.

    Raises ArtifactError when the file is missing, is no artifact, is of another format or version, or
    is incomplete.
    """

    def __init__(self, path: Path | str, format_: str | None = None) -> None:
        self.path = Path(path)
        self._expected = format_
        self._pid = -1
        try:
            self._load_header()
        except Exception as error:  # h5py raises nearly anything on damaged bytes
            self.close()
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(
                f"{self.path}: damaged, or of another version ({error}); make it again with `dvc repro -f`"
            ) from error

    def _load_header(self) -> None:
        attributes = _header(self.path)
        self.format = str(attributes["format"]).removeprefix("weakmask/")
        if self._expected not in (None, self.format):
            raise ArtifactError(f"{self.path}: holds {self.format}, not {self._expected}")
        if self.format not in LAYOUTS:
            raise ArtifactError(
                f"{self.path}: unknown format {self.format!r}; known: {', '.join(LAYOUTS)}"
            )
        self.layout = LAYOUTS[self.format]
        if int(attributes["version"]) != self.layout.version:
            raise ArtifactError(
                f"{self.path}: version {attributes['version']}, this program reads {self.layout.version}; "
                f"make it again with `dvc repro -f {self.format}`"
            )
        self.classes: tuple[str, ...] = _texts(attributes["classes"])
        self.skipped: tuple[str, ...] = _texts(attributes["skipped"])
        self.names: list[str] = [
            name.decode() for name in _own(self.file, "names", h5py.Dataset)[()]
        ]
        self._known = frozenset(self.names)
        if self.names != sorted(self._known):
            raise ValueError("its names are not sorted and unique")
        counts = {key: len(_own(self.file, key, h5py.Group)) for key in self.layout.datasets}
        if any(count != len(self.names) for count in counts.values()):
            raise ArtifactError(
                f"{self.path}: {len(self.names)} names but {counts}; make it again with `dvc repro -f {self.format}`"
            )

    @property
    def file(self) -> h5py.File:
        """The open file of this process."""
        if self._pid != os.getpid():
            self._file = h5py.File(self.path, "r")
            self._pid = os.getpid()
        return self._file

    def __getitem__(self, name: str) -> Record:
        return self._read(name, [*self.layout.datasets, *self.layout.attributes])

    def _read(self, name: str, keys: Sequence[str]) -> dict[str, np.ndarray]:
        if name not in self._known:
            raise KeyError(f"{self.path} has no image {name!r} ({len(self.names)} images)")
        with self._naming(name):
            last = self._item(name, list(self.layout.datasets)[-1])
            return {
                key: self._item(name, key)[()]
                if key in self.layout.datasets
                else self._attribute(last, key)
                for key in keys
            }

    def stored(self, name: str, key: str) -> h5py.Dataset:
        """One dataset of an image as it lies in the file, with the attributes checked that its last
        one has.
        """
        with self._naming(name):
            item = self._item(name, key)
            if key == list(self.layout.datasets)[-1]:
                for attribute in self.layout.attributes:
                    self._attribute(item, attribute)
            return item

    def _item(self, name: str, key: str) -> h5py.Dataset:
        item = _own(_own(self.file, key, h5py.Group), escape(name), h5py.Dataset)
        _expect(key, item.dtype, item.shape, self.layout.datasets[key])
        return item

    def _attribute(self, item: h5py.Dataset, key: str) -> np.ndarray:
        stored = item.attrs.get_id(key)
        _expect(key, stored.dtype, stored.shape, self.layout.attributes[key])
        return item.attrs[key]

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Raise ArtifactError that names the image for whatever h5py raises on damaged bytes."""
        try:
            yield
        except Exception as error:
            raise ArtifactError(
                f"{self.path}: {name!r} is damaged ({error}); make it again with `dvc repro -f {self.format}`"
            ) from error

    def array(self, name: str, key: str) -> np.ndarray:
        """One dataset of an image, without reading its others."""
        return self._read(name, [key])[key]

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def close(self) -> None:
        """Close the file of this process; it opens again when read."""
        if self._pid == os.getpid():
            self._file.close()
            self._pid = -1

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_file"} | {"_pid": -1}


def merge(
    paths: Iterable[Path],
    out: Path,
    format_: str,
    classes: Sequence[str],
    skipped: Sequence[str] = (),
) -> None:
    """Join shard files of one layout into the artifact `out`, images sorted by id over all shards.

    One shard is open at a time: a system lets a process open about a thousand files.
    """
    where: dict[str, Reader] = {}
    for path in paths:
        reader = Reader(path, format_)
        where |= dict.fromkeys(reader.names, reader)
        reader.close()
    with Writer(out, format_, classes, skipped) as writer:
        for _, names in groupby(sorted(where), key=lambda name: where[name].path):
            for name in names:
                writer.copy(where[name], name)
            where[name].close()


def _header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; `dvc repro` makes it")
    try:
        with h5py.File(path, "r") as file:
            attributes = dict(file.attrs)
    except Exception as error:  # h5py raises nearly anything on damaged bytes
        raise ArtifactError(
            f"{path}: not a readable HDF5 file ({error}); make it again with `dvc repro -f`"
        ) from error
    if not str(attributes.get("format", "")).startswith("weakmask/"):
        raise ArtifactError(
            f"{path}: an HDF5 file, but no artifact of this pipeline (attribute `format`)"
        )
    if not attributes.get("complete", False):
        raise ArtifactError(f"{path}: incomplete, its writer was interrupted; run the stage again")
    return attributes


def _texts(text: Any) -> tuple[str, ...]:
    """The texts of a JSON list; raises ValueError for anything else."""
    values = json.loads(text)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{text[:80]!r} is no list of texts")
    return tuple(values)


def _own(group: h5py.Group, name: str, kind: type[h5py.HLObject]) -> Any:
    """What lies in a group under a name; raises ValueError unless it is of this kind and all of it
    in this file.

    Links and external storage could show any file of the machine; a small file can declare data
    without bounds.
    """
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name!r} is a link")
    found = group[name]
    if not isinstance(found, kind):
        raise ValueError(f"{name!r} is no {kind.__name__.lower()}")
    if isinstance(found, h5py.Dataset):
        if found.is_virtual or found.external:
            raise ValueError(f"{name!r} has its values in other files")
        if found.nbytes > MOST_PACKED * found.id.get_storage_size():
            raise ValueError(f"{name!r} declares {found.nbytes} bytes, more than the file can hold")
    return found


def _expect(
    key: str, dtype: np.dtype[Any], shape: tuple[int, ...], wanted: tuple[str, int]
) -> None:
    """Raise ValueError unless an array is of the wanted dtype and rank."""
    if dtype != np.dtype(wanted[0]) or len(shape) != wanted[1]:
        raise ValueError(
            f"{key} is {dtype} of shape {shape}, {wanted[0]} of rank {wanted[1]} wanted"
        )


def validate_record(format_: str, record: Record) -> dict[str, np.ndarray]:
    """The arrays of an image in the layout's dtypes.

    Raises ArtifactError for one that is missing, of another rank, not finite, or with values that the
    dtype cannot hold.
    """
    layout = LAYOUTS[format_]
    wanted = {**layout.datasets, **layout.attributes}
    if missing := [key for key in wanted if key not in record]:
        raise ArtifactError(f"comes without {', '.join(missing)}")
    return {
        key: _fit(key, np.asarray(record[key]), np.dtype(dtype), rank)
        for key, (dtype, rank) in wanted.items()
    }


def _fit(key: str, given: np.ndarray, dtype: np.dtype[Any], rank: int) -> np.ndarray:
    if given.ndim != rank:
        raise ArtifactError(f"{key} has {given.ndim} dimensions, {rank} wanted")
    if given.dtype.kind not in "biuf":
        raise ArtifactError(f"{key} holds {given.dtype}, numbers wanted")
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(given, dtype=dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ArtifactError(f"{key} holds values that are not finite in {dtype}")
    if (
        dtype.kind != "f"
        and not np.can_cast(given.dtype, dtype)
        and not np.array_equal(array, given)
    ):
        raise ArtifactError(
            f"{key} holds values that {dtype} cannot hold, from {given.min()} to {given.max()}"
        )
    return array


def _let_go(file: h5py.File) -> None:
    """Let a file that is given up end in memory: on a full disk each of its objects would try to
    write once more, and complain.
    """
    if hasattr(os, "memfd_create"):
        nowhere = os.memfd_create("nowhere")
        os.dup2(nowhere, file.id.get_vfd_handle())
        os.close(nowhere)


def _write_out(written: h5py.File | h5py.Dataset) -> None:
    """Hand everything to the system: closing does it too, but is silent where there is no room."""
    try:
        written.flush()
    except RuntimeError as error:
        number = re.search(r"errno = (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error


IGNORE = 255
MAX_CLASSES = 254
"""Classes beside background that fit."""
