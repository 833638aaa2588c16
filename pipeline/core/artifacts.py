"""The HDF5 artifacts: their layouts, the writer, the reader.

Root attributes `format`, `version`, `classes`, `skipped`, `complete`; dataset `names` with the
sorted ids of all images; one dataset per image and array, chunk = the whole item, gzip 1 + shuffle,
so that every HDF5 tool reads it. Equal content gives equal bytes.

Label maps are uint8 [H,W]: 0 background, c + 1 class c (0-based), IGNORE where nothing is known.
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
from typing import Any, Self

import h5py
import numpy as np

from pipeline.core.resume import writing
from pipeline.errors import UserError, count

# Label maps

IGNORE = 255
"""Label of pixels that neither training nor scores count."""
MAX_CLASSES = 254
"""Number of classes, besides background and IGNORE, that fit into a label map."""

# Layouts

Record = Mapping[str, np.ndarray]  # the arrays of an image by name


class ArtifactError(UserError):
    """An artifact is missing, damaged, incomplete or of another kind; the message names the file
    and what to do.
    """


@dataclass(frozen=True, slots=True)
class Layout:
    """The datasets and attributes of an image by name, each with dtype and rank."""

    version: int
    datasets: Mapping[str, tuple[str, int]]
    attributes: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def last(self) -> str:
        """Name of the dataset that holds the attributes."""
        return [*self.datasets][-1]


OBJECTS = {"classes": ("u1", 1), "scores": ("f4", 1)}
LAYOUTS: Mapping[str, Layout] = {
    "segments": Layout(
        1,
        {"embeddings": ("f2", 3), "segments": ("u2", 2)},
        {"stability": ("f4", 1), "iou": ("f4", 1)},
    ),
    "features": Layout(1, {"features": ("f2", 3)}, {"stride": ("i4", 1)}),
    "cams": Layout(1, {"cams": ("f2", 3)}, {"labels": ("u1", 1), "size": ("i4", 1)}),
    "seeds": Layout(1, {"seeds": ("u1", 2)}),
    "fields": Layout(1, {"boundary": ("f2", 2), "displacement": ("f2", 3)}),
    "walk": Layout(
        2, {"background": ("f2", 2), "maps": ("f2", 3)}, {"classes": ("u1", 1), "size": ("i4", 1)}
    ),
    "labels": Layout(1, {"semantic": ("u1", 2), "instances": ("u2", 2)}, OBJECTS),
    "predictions": Layout(2, {"semantic": ("u1", 2), "instances": ("u1", 3)}, OBJECTS),
    "hints": Layout(
        1,
        {"pixels": ("u1", 2), "instances": ("u2", 2), "evidence": ("f2", 3)},
        {"classes": ("u1", 1), "objects": ("f4", 2), "boxes": ("f4", 2), "gated": ("u1", 1)},
    ),
}


def escape(name: str) -> str:
    """Return the HDF5 link name of an image id: `/`, `%` and a leading dot become %XX."""
    name = name.replace("%", "%25").replace("/", "%2F")
    return "%2E" + name[1:] if name.startswith(".") else name


def validate_record(format_: str, record: Record) -> dict[str, np.ndarray]:
    """Return the arrays of an image in the layout's dtypes.

    Raises:
        ArtifactError: an array is missing, of another rank, not finite, or has values that the
            dtype cannot hold.
    """
    layout = LAYOUTS[format_]
    expected = {**layout.datasets, **layout.attributes}
    if missing := [key for key in expected if key not in record]:
        raise ArtifactError(f"missing arrays: {', '.join(missing)}")
    return {
        key: _cast(key, np.asarray(record[key]), np.dtype(dtype), rank)
        for key, (dtype, rank) in expected.items()
    }


def _cast(key: str, values: np.ndarray, dtype: np.dtype[Any], rank: int) -> np.ndarray:
    if values.ndim != rank:
        raise ArtifactError(f"{key} has {values.ndim} dimensions, expected {rank}")
    if values.dtype.kind not in "biuf":
        raise ArtifactError(f"{key} holds {values.dtype}, expected numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(values, dtype=dtype)
    if dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ArtifactError(f"{key} has values that are not finite in {dtype}")
    elif not np.can_cast(values.dtype, dtype) and not np.array_equal(array, values):
        raise ArtifactError(
            f"{key} has values from {values.min()} to {values.max()}, which {dtype} cannot hold"
        )
    return array


# Writing


class Writer:
    """Writes one artifact to `<path>.part` and renames it when complete; a context manager.

    Names must come in sorted order. `skipped` names images that are left out on purpose.
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
        """Validate and append an image; raise ArtifactError if it does not fit the layout."""
        try:
            arrays = validate_record(self.format, record)
        except ArtifactError as error:
            raise ArtifactError(f"{self.path}: {name!r}: {error}") from error
        self.append(name, arrays)

    def append(self, name: str, arrays: Record) -> None:
        """Append an image whose arrays have been validated."""
        if self._names and name <= self._names[-1]:
            raise ArtifactError(
                f"{self.path}: {name!r} after {self._names[-1]!r}; names must be sorted and unique"
            )
        with writing(self.path):
            for key in self.layout.datasets:
                self._write_array(key, name, arrays[key])
            self._write_attributes(name, arrays)

    def copy(self, reader: "Reader", name: str) -> None:
        """Append an image of another artifact of the same layout as it is compressed.

        Each object is created as `append` does: HDF5's own copy would lay out the file differently.
        """
        datasets, attributes = reader.stored(name)
        with writing(self.path):
            for key, source in datasets.items():
                self._copy_chunk(key, name, source)
            self._write_attributes(name, attributes)

    # The next two drop the dataset before they return: HDF5 places a chunk in the file when its
    # dataset is closed, and the place must not depend on where the chunk came from.

    def _write_array(self, key: str, name: str, array: np.ndarray) -> None:
        dataset = self._create(key, name, array.shape, array.dtype)
        if array.size:
            dataset[()] = array
            _flush(dataset)

    def _copy_chunk(self, key: str, name: str, source: h5py.Dataset) -> None:
        dataset = self._create(key, name, source.shape, source.dtype)
        if source.size:
            filters, chunk = source.id.read_direct_chunk((0,) * source.ndim)
            dataset.id.write_direct_chunk((0,) * source.ndim, chunk, filters)
            _flush(dataset)

    def _create(
        self, key: str, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> h5py.Dataset:
        packed = {"chunks": shape, "compression": "gzip", "compression_opts": 1, "shuffle": True}
        options = packed if 0 not in shape else {}
        return self._groups[key].create_dataset(
            escape(name), shape, dtype, track_times=False, **options
        )

    def _write_attributes(self, name: str, values: Record) -> None:
        item = self._groups[self.layout.last][escape(name)]
        for key in self.layout.attributes:
            item.attrs[key] = values[key]
        self._names.append(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with writing(self.path):
                    self._finish()
        finally:
            if self._file:
                _divert(self._file)
                with suppress(OSError, RuntimeError):
                    self._file.close()
            self.part.unlink(missing_ok=True)

    def _finish(self) -> None:
        encoded = [name.encode() for name in self._names]
        names = np.array(encoded, dtype=f"S{max(map(len, encoded), default=1)}")
        self._file.create_dataset("names", data=names, track_times=False)
        self._file.attrs["complete"] = True
        _flush(self._file)
        self._file.close()
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.path)


def _flush(written: h5py.File | h5py.Dataset) -> None:
    """Hand everything to the system; closing does so too, but ignores a full disk."""
    try:
        written.flush()
    except RuntimeError as error:
        number = re.search(r"errno = (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error


def _divert(file: h5py.File) -> None:
    """Let a file that is given up write to memory: on a full disk HDF5 would fail to close it, and
    crash when its objects are freed.
    """
    if hasattr(os, "memfd_create"):
        memory = os.memfd_create("discarded")
        os.dup2(memory, file.id.get_vfd_handle())
        os.close(memory)


def merge(
    paths: Iterable[Path],
    out: Path,
    format_: str,
    classes: Sequence[str],
    skipped: Sequence[str] = (),
) -> None:
    """Join shard files of one layout into the artifact `out`, images sorted by id over all shards.

    One shard is open at a time: a process may open about a thousand files.
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


# Reading


class Reader(Mapping[str, Record]):
    """A mapping from image id to arrays; the file is opened once per process, so it is picklable.

    Raises:
        ArtifactError: the file is missing, damaged, incomplete, no artifact, or one of another
            format or version.
    """

    def __init__(self, path: Path | str, format_: str | None = None) -> None:
        self.path = Path(path)
        self._pid = -1
        if not self.path.is_file():
            raise ArtifactError(f"{self.path}: no such file; `dvc repro` makes it")
        try:
            self._load_header(format_)
        except Exception as error:  # h5py raises nearly anything on damaged bytes
            self.close()
            if isinstance(error, ArtifactError):
                raise
            unreadable = isinstance(error, OSError)
            what = "not a readable HDF5 file" if unreadable else "damaged, or of another version"
            raise ArtifactError(
                f"{self.path}: {what} ({error}); make it again with `dvc repro -f`"
            ) from error

    def _load_header(self, expected: str | None) -> None:
        attributes = dict(self.file.attrs)
        kind, _, self.format = str(attributes.get("format", "")).partition("/")
        if kind != "weakmask":
            raise ArtifactError(f"{self.path}: an HDF5 file, but not an artifact of this pipeline")
        if not attributes.get("complete", False):
            raise ArtifactError(
                f"{self.path}: incomplete, its writer was interrupted; run it again"
            )
        if expected not in (None, self.format):
            raise ArtifactError(f"{self.path}: holds {self.format}, expected {expected}")
        if self.format not in LAYOUTS:
            raise ArtifactError(
                f"{self.path}: unknown format {self.format!r}; known: {', '.join(LAYOUTS)}"
            )
        self.layout = LAYOUTS[self.format]
        again = f"make it again with `dvc repro -f {self.format}`"
        if int(attributes["version"]) != self.layout.version:
            raise ArtifactError(
                f"{self.path}: version {attributes['version']}, this program reads version "
                f"{self.layout.version}; {again}"
            )
        self.classes: tuple[str, ...] = tuple(map(str, json.loads(attributes["classes"])))
        self.skipped: tuple[str, ...] = tuple(map(str, json.loads(attributes["skipped"])))
        self.names: list[str] = [name.decode() for name in self.file["names"][()]]
        self._known = frozenset(self.names)
        if self.names != sorted(self._known):
            raise ValueError("its names are not sorted and unique")
        counts = {key: len(self.file[key]) for key in self.layout.datasets}
        if set(counts.values()) != {len(self.names)}:
            raise ArtifactError(f"{self.path}: {len(self.names)} names but {counts}; {again}")

    @property
    def file(self) -> h5py.File:
        """The open file of this process."""
        if self._pid != os.getpid():
            self._file = h5py.File(self.path, "r")
            self._pid = os.getpid()
        return self._file

    def __getitem__(self, name: str) -> Record:
        datasets, attributes = self.stored(name)
        with self._naming(name):
            return {key: dataset[()] for key, dataset in datasets.items()} | attributes

    def array(self, name: str, key: str) -> np.ndarray:
        """Return one dataset of an image without reading its others."""
        with self._naming(name):
            return self._dataset(name, key)[()]

    def stored(self, name: str) -> tuple[dict[str, h5py.Dataset], dict[str, np.ndarray]]:
        """Return the datasets of an image, which are not read yet, and its attributes."""
        with self._naming(name):
            datasets = {key: self._dataset(name, key) for key in self.layout.datasets}
            attributes = datasets[self.layout.last].attrs
            return datasets, {key: attributes[key] for key in self.layout.attributes}

    def _dataset(self, name: str, key: str) -> h5py.Dataset:
        item = self.file[key][escape(name)]
        dtype, rank = self.layout.datasets[key]
        if item.dtype != dtype or item.ndim != rank:
            raise ValueError(f"{key} is {item.dtype} {item.shape}, expected {dtype} of rank {rank}")
        if item.chunks != item.shape and 0 not in item.shape:
            raise ValueError(f"{key} is not a single chunk")
        return item

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Raise ArtifactError for what h5py raises on damaged bytes, KeyError without an image."""
        if name not in self._known:
            raise KeyError(f"{self.path} has no image {name!r} ({count(len(self.names), 'image')})")
        try:
            yield
        except Exception as error:
            raise ArtifactError(
                f"{self.path}: {name!r} is damaged ({error}); make it again with "
                f"`dvc repro -f {self.format}`"
            ) from error

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def close(self) -> None:
        """Close the file of this process; reading opens it again."""
        if self._pid == os.getpid():
            self._file.close()
            self._pid = -1

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_file"} | {"_pid": -1}
