"""The HDF5 artefacts: one writer, one reader, one table of layouts.

Root attributes `format`, `version`, `classes`, `skipped`, `complete`; dataset `names` with the sorted ids of all pictures; one dataset
per picture and array, chunk = the whole item, gzip 1 + shuffle, so that every HDF5 tool reads it. Equal content gives equal bytes.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from pipeline.errors import UserError

Record = Mapping[str, np.ndarray]


class StoreError(UserError):
    """An artefact is missing, damaged, incomplete or of another kind; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What an artefact holds per picture: datasets and attributes by name, each with dtype and rank."""

    version: int
    datasets: Mapping[str, tuple[str, int]]
    attributes: Mapping[str, tuple[str, int]] = field(default_factory=dict)


LAYOUTS: Mapping[str, Layout] = {
    "cams": Layout(1, {"cams": ("f2", 3)}, {"labels": ("u1", 1), "size": ("i4", 1)}),
    "seeds": Layout(1, {"seeds": ("u1", 2)}),
    "fields": Layout(1, {"boundary": ("f2", 2), "displacement": ("f2", 3)}),
    "labels": Layout(
        1, {"semantic": ("u1", 2), "instances": ("u2", 2)}, {"classes": ("u1", 1), "scores": ("f4", 1)}
    ),
    "predictions": Layout(1, {"semantic": ("u1", 2)}),
}


def escape(name: str) -> str:
    """The HDF5 link name of a picture id: `/`, `%` and a leading dot are written as %XX, all else stays readable."""
    name = name.replace("%", "%25").replace("/", "%2F")
    return "%2E" + name[1:] if name.startswith(".") else name


class Writer:
    """Writes one artefact to `<path>.part` and renames it when whole; a context manager.

    Names must come in sorted order. `skipped` names pictures that are left out on purpose.
    Raises StoreError for an item that does not fit the layout.
    """

    def __init__(self, path: Path, format_: str, classes: Sequence[str], skipped: Sequence[str] = ()) -> None:
        self.path, self.layout = path, LAYOUTS[format_]
        self.part = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._names: list[str] = []
        self._file = h5py.File(self.part, "w", libver="v108", track_order=False)
        self._file.attrs["format"] = f"weakmask/{format_}"
        self._file.attrs["version"] = self.layout.version
        self._file.attrs["classes"] = json.dumps(list(classes), ensure_ascii=False)
        self._file.attrs["skipped"] = json.dumps(sorted(skipped), ensure_ascii=False)
        self._groups = {name: self._file.create_group(name) for name in self.layout.datasets}

    def write(self, name: str, record: Record) -> None:
        """Append the picture `name`; arrays are cast to the layout's dtypes."""
        if self._names and name <= self._names[-1]:
            raise StoreError(
                f"{self.path}: {name!r} after {self._names[-1]!r}; names must come sorted and once"
            )
        for key, (dtype, rank) in self.layout.datasets.items():
            array = _fit(self.path, name, key, record, dtype, rank)
            options = (
                {}
                if array.size == 0
                else {"chunks": array.shape, "compression": "gzip", "compression_opts": 1}
            )
            self._groups[key].create_dataset(
                escape(name), data=array, shuffle=array.size > 0, track_times=False, **options
            )
        self._attributes(name, record)

    def copy(self, reader: "Reader", name: str) -> None:
        """Append a picture of another artefact of the same layout without decoding its compressed bytes."""
        source = reader.file
        for key in self.layout.datasets:
            source.copy(source[key][escape(name)], self._groups[key], name=escape(name))
        self._names.append(name)

    def _attributes(self, name: str, record: Record) -> None:
        last = self._groups[list(self.layout.datasets)[-1]][escape(name)]
        for key, (dtype, rank) in self.layout.attributes.items():
            last.attrs[key] = _fit(self.path, name, key, record, dtype, rank)
        self._names.append(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._file.close()
            self.part.unlink(missing_ok=True)
            return
        encoded = [name.encode() for name in self._names]
        width = max(map(len, encoded), default=1)
        self._file.create_dataset("names", data=np.array(encoded, dtype=f"S{width}"), track_times=False)
        self._file.attrs["complete"] = True
        self._file.close()
        _flush(self.part)
        os.replace(self.part, self.path)


class Reader(Mapping[str, Record]):
    """Reads one artefact as a mapping of picture id to its arrays; opened lazily and once per process, so it may be pickled.

    Raises StoreError when the file is missing, is no artefact, is of another format or version, or is incomplete.
    """

    def __init__(self, path: Path | str, format_: str | None = None) -> None:
        self.path = Path(path)
        self._expected = format_
        self._pid = -1
        self._load_header()

    def _load_header(self) -> None:
        attributes = _header(self.path)
        self.format = str(attributes["format"]).removeprefix("weakmask/")
        if self._expected not in (None, self.format):
            raise StoreError(f"{self.path}: holds {self.format}, not {self._expected}")
        if self.format not in LAYOUTS:
            raise StoreError(f"{self.path}: unknown format {self.format!r}; known: {', '.join(LAYOUTS)}")
        self.layout = LAYOUTS[self.format]
        if int(attributes["version"]) != self.layout.version:
            raise StoreError(
                f"{self.path}: version {attributes['version']}, this program reads {self.layout.version}; "
                f"make it anew with `dvc repro -f {self.format}`"
            )
        self.classes: tuple[str, ...] = tuple(json.loads(attributes["classes"]))
        self.skipped: tuple[str, ...] = tuple(json.loads(attributes["skipped"]))
        self.names: list[str] = [name.decode() for name in self.file["names"][()]]
        self._known = frozenset(self.names)
        counts = {key: len(self.file[key]) for key in self.layout.datasets}
        if any(count != len(self.names) for count in counts.values()):
            raise StoreError(
                f"{self.path}: {len(self.names)} names but {counts}; make it anew with `dvc repro -f {self.format}`"
            )

    @property
    def file(self) -> h5py.File:
        """The open file of this process."""
        if self._pid != os.getpid():
            self._file = h5py.File(self.path, "r")
            self._pid = os.getpid()
        return self._file

    def __getitem__(self, name: str) -> Record:
        if name not in self._known:
            raise KeyError(f"{self.path} has no picture {name!r} ({len(self.names)} pictures)")
        link = escape(name)
        record = {key: self.file[key][link][()] for key in self.layout.datasets}
        last = self.file[list(self.layout.datasets)[-1]][link]
        return record | {key: last.attrs[key] for key in self.layout.attributes}

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
    paths: Iterable[Path], out: Path, format_: str, classes: Sequence[str], skipped: Sequence[str] = ()
) -> None:
    """Join shard files of one layout into the artefact `out`, pictures sorted by id over all shards."""
    readers = [Reader(path, format_) for path in paths]
    where = {name: reader for reader in readers for name in reader.names}
    with Writer(out, format_, classes, skipped) as writer:
        for name in sorted(where):
            writer.copy(where[name], name)
    for reader in readers:
        reader.close()


def _header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise StoreError(f"{path}: no such file; `dvc repro` makes it")
    try:
        with h5py.File(path, "r") as file:
            attributes = dict(file.attrs)
    except OSError as error:
        raise StoreError(
            f"{path}: not a readable HDF5 file ({error}); make it anew with `dvc repro -f`"
        ) from error
    if "format" not in attributes:
        raise StoreError(f"{path}: an HDF5 file, but no artefact of this pipeline (no attribute `format`)")
    if not attributes.get("complete", False):
        raise StoreError(f"{path}: incomplete, its writer was interrupted; run the stage again")
    return attributes


def _fit(path: Path, name: str, key: str, record: Record, dtype: str, rank: int) -> np.ndarray:
    if key not in record:
        raise StoreError(f"{path}: picture {name!r} comes without {key!r}")
    array = np.ascontiguousarray(record[key], dtype=dtype)
    if np.ndim(record[key]) != rank:
        raise StoreError(f"{path}: {key} of {name!r} has {np.ndim(record[key])} dimensions, {rank} wanted")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise StoreError(f"{path}: {key} of {name!r} holds values that are not finite")
    return array


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
