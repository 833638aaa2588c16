"""The files of one run: index, artifacts, score tables and parameters, read again when replaced."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

from pipeline.core.artifacts import LAYOUTS, ArtifactError, Reader
from pipeline.data.index import HEADER, TABLE, Index
from pipeline.errors import UserError
from pipeline.views.report_data import TITLES, read_rows

Value = TypeVar("Value")
Table = Mapping[str, Mapping[str, float]]
"""Row -> column -> number."""
FORMATS = tuple(LAYOUTS)
SCORED = tuple(TITLES)
"""Steps that are compared with ground-truth masks, in the order of the pipeline."""
JUDGED = ("labels", "predictions")
"""Steps whose failures are counted by kind."""
TABLES = (
    *((step, table) for step in SCORED for table in ("images", "summary")),
    *((step, "failures") for step in JUDGED),
)
"""The score tables that are shown: (step, table)."""


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Where the files of a run are; none of them has to exist.

    artifacts: format -> HDF5 file; tables: one of TABLES -> CSV file; missing: format or table
    -> why it is unavailable, for a run that once had it.
    """

    dataset: Path
    artifacts: Mapping[str, Path]
    tables: Mapping[tuple[str, str], Path]
    missing: Mapping[str, str] = field(default_factory=dict)


class ReloadingFile(Generic[Value]):
    """The content of some files, loaded on first use and again after one of them is replaced."""

    def __init__(self, files: Iterable[Path], load: Callable[[], Value]) -> None:
        self.files, self._load = tuple(files), load
        self._loaded: tuple[object, Value] | None = None
        self._lock = Lock()

    def __call__(self) -> Value:
        """Return the current content; raises whatever loading raises."""
        with self._lock:
            identity = self.identity
            if self._loaded is None or self._loaded[0] != identity:
                self._loaded = identity, self._load()
            return self._loaded[1]

    @property
    def identity(self) -> tuple[tuple[int, ...] | None, ...]:
        """A value that changes when a file is written, replaced or removed."""
        return tuple(map(_identity, self.files))


class Run:
    """A named run whose files are at `paths`.

    parameters: returns the nested plain values that the run was made with.
    """

    def __init__(
        self, name: str, paths: RunPaths, parameters: Callable[[], Mapping[str, Any]]
    ) -> None:
        self.name, self.paths, self._parameters = name, paths, parameters
        folder = paths.dataset
        self._index = ReloadingFile((folder / HEADER, folder / TABLE), partial(Index.load, folder))
        self._readers = {
            key: ReloadingFile((path,), partial(Reader, path, key))
            for key, path in paths.artifacts.items()
        }
        self._tables = {
            key: ReloadingFile((path,), partial(_read_table, path))
            for key, path in paths.tables.items()
        }

    @property
    def index(self) -> Index:
        """The images of the run; raises DatasetError."""
        return self._index()

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters by section."""
        return self._parameters()

    def value(self, *path: str) -> Any:
        """Return the parameter at a path ("walk", "beta"); raise UserError if it is missing."""
        value: Any = self.parameters
        for key in path:
            if not isinstance(value, Mapping) or key not in value:
                raise UserError(
                    f"{'.'.join(path)}: not in the run's parameters, so this cannot be computed"
                )
            value = value[key]
        return value

    def reader(self, format_: str) -> Reader:
        """Open the artifact of a format; raises ArtifactError if it is missing or damaged."""
        if format_ in self.paths.missing:
            raise ArtifactError(self.paths.missing[format_])
        if format_ not in self._readers:
            raise ArtifactError(f"{self.name} has no {format_}; make it with `dvc repro {format_}`")
        return self._readers[format_]()

    def exists(self, format_: str) -> bool:
        """Whether there is a file of this format, intact or not."""
        return format_ in self.paths.artifacts and self.paths.artifacts[format_].is_file()

    def holds(self, format_: str, name: str) -> bool:
        """Whether there is an intact artifact of this format that has the image."""
        with suppress(UserError):
            return self.exists(format_) and name in self.reader(format_)
        return False

    def problems(self) -> list[str]:
        """Return what is wrong with artifacts and score tables, a line each; none for an artifact
        that was never made.
        """
        readers = self._readers.items()
        checks: list[Callable[[], object]] = [load for key, load in readers if self.exists(key)]
        checks += self._tables.values()
        found = list(self.paths.missing.values())
        for load in checks:
            try:
                load()
            except UserError as error:
                found.append(str(error))
        return list(dict.fromkeys(found))

    def table(self, step: str, name: str) -> Table:
        """Return a score table by its first column, empty if unreadable (see `problems`)."""
        try:
            return self._tables[step, name]() if (step, name) in self._tables else {}
        except UserError:
            return {}

    def miou(self, step: str) -> dict[str, float]:
        """Return mIoU by image of a step; images without a counted pixel are left out."""
        rows = self.table(step, "images").items()
        return {name: row["miou"] for name, row in rows if "miou" in row}

    def scores(self, step: str) -> dict[str, float]:
        """Return the scores of a step over all its images by name."""
        rows = self.table(step, "summary").items()
        return {name: row["value"] for name, row in rows if "value" in row}

    def stamp(self) -> str:
        """Return a short text that changes when the dataset, an artifact or a parameter does."""
        parameters: Mapping[str, Any] = {}
        with suppress(UserError):
            parameters = self.parameters
        files = [self._index.identity, *(reader.identity for reader in self._readers.values())]
        return hashlib.blake2b(repr((files, parameters)).encode(), digest_size=5).hexdigest()


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read_table(path: Path) -> Table:
    """Read the numbers of a table by its first column, none without a file."""
    if not path.is_file():
        return {}
    try:
        found: dict[str, dict[str, float]] = {}
        for row in read_rows(path):
            name, *texts = row.values()
            pairs = zip(list(row)[1:], texts, strict=True)
            found[name] = {column: float(text) for column, text in pairs if text}
        return found
    except ValueError as error:
        raise ArtifactError(
            f"{path}: not a score table ({error}); "
            f"make it again with `dvc repro -f scores@{path.parent.name}`"
        ) from error
