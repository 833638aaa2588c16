"""What exists of one run: the index, readers by format, score tables, parameters; each is read
again when its file is another one.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

from pipeline.core.artifacts import LAYOUTS, ArtifactError, Reader
from pipeline.data.index import HEADER, TABLE, Index
from pipeline.errors import UserError
from pipeline.views.report_data import TITLES, read_rows

Value = TypeVar("Value")
FORMATS = tuple(LAYOUTS)
SCORED = tuple(TITLES)
"""Steps that are compared with pixel masks, in the order of the pipeline."""


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Where the things of a run lie; none of them has to exist.

    artifacts: format -> HDF5 file; tables: scored step -> per-image csv; lacking: format or step ->
    why it cannot be had, for a run that once held it.
    """

    dataset: Path
    artifacts: Mapping[str, Path]
    tables: Mapping[str, Path]
    lacking: Mapping[str, str] = field(default_factory=dict)


class Fresh(Generic[Value]):
    """What a few files hold, read when first asked for and again whenever one of them is replaced."""

    def __init__(self, files: Iterable[Path], load: Callable[[], Value]) -> None:
        self.files, self._load = tuple(files), load
        self._read: tuple[object, Value] | None = None
        self._lock = Lock()

    def __call__(self) -> Value:
        """The content as of now; raises what loading raises."""
        with self._lock:
            identity = self.identity
            if self._read is None or self._read[0] != identity:
                self._read = identity, self._load()
            return self._read[1]

    @property
    def identity(self) -> tuple[tuple[int, ...] | None, ...]:
        """Which files these are: changes when one is written, replaced or removed."""
        return tuple(map(_identity, self.files))


class Run:
    """One run under a name, from the places where its things lie.

    parameters: what returns the nested plain values that the run was made with.
    """

    def __init__(
        self, name: str, places: RunPaths, parameters: Callable[[], Mapping[str, Any]]
    ) -> None:
        self.name, self.places, self._parameters = name, places, parameters
        folder = places.dataset
        self._index = Fresh((folder / HEADER, folder / TABLE), lambda: Index.load(folder))
        self._readers = {
            key: Fresh((path,), _opener(path, key)) for key, path in places.artifacts.items()
        }
        self._tables = {key: Fresh((path,), _table(path)) for key, path in places.tables.items()}

    @property
    def index(self) -> Index:
        """The images of the run; raises DatasetError."""
        return self._index()

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Parameters by section, as the run was made with them."""
        return self._parameters()

    def reader(self, format_: str) -> Reader:
        """The artifact of a format; raises ArtifactError that says what is wrong with it."""
        if format_ in self.places.lacking:
            raise ArtifactError(self.places.lacking[format_])
        if format_ not in self._readers:
            raise ArtifactError(f"{self.name} holds no {format_}; `dvc repro {format_}` makes them")
        return self._readers[format_]()

    def exists(self, format_: str) -> bool:
        """Whether there is a file of this format, sound or not."""
        return format_ in self.places.artifacts and self.places.artifacts[format_].is_file()

    def problem(self, key: str) -> str | None:
        """What is wrong with the artifact or score table `key`; None if it is sound or was never
        made.
        """
        if key in self.places.lacking:
            return self.places.lacking[key]
        try:
            if self.exists(key):
                self.reader(key)
        except UserError as error:
            return str(error)
        return None

    def miou(self, step: str) -> Mapping[str, float]:
        """mIoU by image of a scored step; empty where there is no table, raises UserError for a
        damaged one.
        """
        table = self._tables.get(step)
        return table() if table is not None and table.files[0].is_file() else {}

    def stamp(self, formats: Iterable[str] = FORMATS) -> str:
        """Short text that changes when the dataset or an artifact of these formats does."""
        known = [self._readers[key].identity for key in formats if key in self._readers]
        return f"{hash((self._index.identity, tuple(known))) & 0xFFFFFFFFFF:x}"


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _opener(path: Path, format_: str) -> Callable[[], Reader]:
    return lambda: Reader(path, format_)


def _table(path: Path) -> Callable[[], dict[str, float]]:
    def load() -> dict[str, float]:
        """mIoU by id; images in which nothing was counted are left out."""
        try:
            return {row["id"]: float(row["miou"]) for row in read_rows(path) if row["miou"]}
        except (KeyError, ValueError) as error:
            step = path.parent.name
            raise ArtifactError(
                f"{path}: no score table ({error!r}); make it again with `dvc repro -f scores@{step}`"
            ) from error

    return load
