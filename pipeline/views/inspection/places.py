"""What lies at a path: every artifact, table and folder of this pipeline, finished or not,
described or drawn.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.core.artifacts import Reader
from pipeline.core.weights import read_header
from pipeline.data.index import HEADER, Index
from pipeline.errors import UserError
from pipeline.views.inspection import reports, tables, unfinished
from pipeline.views.inspection.artifacts import describe
from pipeline.views.inspection.datasets import describe_index, draw_image
from pipeline.views.inspection.drawing import draw
from pipeline.views.inspection.networks import describe_checkpoint, describe_weights
from pipeline.views.inspection.words import bytes_of, count, not_there
from pipeline.views.report_data import FILE

KNOWN = (
    "artifacts (.h5), weights (.safetensors), checkpoints (.pt), scores (.json), tables and curves (.csv), "
    "folders of a dataset, scores, a report, unfinished work or all of them"
)


def inspect(path: Path) -> list[str]:
    """Lines of text on what lies at `path`, the last ones on what is odd; raises UserError where
    that is nothing, or nothing known.
    """
    if path.is_dir():
        return _inspect_folder(path)
    if not path.is_file():
        raise UserError(_missing(path))
    if path.name.endswith(".part"):
        return [
            f"{path.name}: being written, {bytes_of(path.stat().st_size)} so far; nothing of it can be read yet"
        ]
    describers: dict[str, Callable[[Path], list[str]]] = {
        ".h5": lambda path: describe(reader(path)),
        ".safetensors": describe_weights,
        ".pt": describe_checkpoint,
        ".csv": tables.describe_table,
        ".json": _inspect_json,
    }
    if path.suffix not in describers:
        raise UserError(f"{path}: nothing of this pipeline; it knows {KNOWN}")
    return describers[path.suffix](path)


def look_up(path: Path, name: str, dataset: Path) -> np.ndarray | list[str]:
    """One image of what lies at `path`: a sheet uint8 RGB of what has pixels, lines of text of
    scores and tables.

    dataset: folder of the images to draw on. Raises UserError where it is not there, or there are
    no images at all.
    """
    if path.is_dir() and (path / HEADER).is_file():
        index = Index.load(path)
        return draw_image(index, _there(index, path, name))
    if path.suffix == ".h5" and path.is_file():
        return _drawn(reader(path), path, name, dataset)
    if path.is_dir() and (found := unfinished.folders(path)):
        return _drawn(unfinished.shards_of(found[0]), found[0], name, dataset)
    if path.is_dir() and (path / FILE).is_file():
        return reports.scores_of(path, name)
    files = (
        sorted(path.rglob("*.csv")) if path.is_dir() else [path] if path.suffix == ".csv" else []
    )
    files = [file for file in files if file.is_file()]
    if lines := [line for file in files for line in tables.rows_of(file, name)]:
        return lines
    names = sorted({one for file in files for one in tables.ids_of(file)})
    if names:
        raise not_there(path, name, names)
    inspect(path)
    raise UserError(f"{path}: holds no images one by one, so leave out {name!r}")


def reader(path: Path) -> Reader:
    """The artifact at `path`; raises UserError in one line for anything that is none, or was made
    by an older version.
    """
    return Reader(path)


def _drawn(
    artifact: Reader | unfinished.Shards, path: Path, name: str, dataset: Path
) -> np.ndarray:
    record = artifact[_there(artifact, path, name)]
    index = Index.load(dataset)
    return draw(
        artifact.format, record, index.image(_there(index, dataset, name)), artifact.classes
    )


def _there(names: Reader | unfinished.Shards | Index, path: Path, name: str) -> str:
    if name not in names:
        raise not_there(path, name, list(names))
    return name


def _inspect_folder(path: Path) -> list[str]:
    if (path / HEADER).is_file():
        return describe_index(Index.load(path))
    if (path / FILE).is_file() or (path / "sheets").is_dir():
        return reports.describe_report(path)
    if found := unfinished.folders(path):
        return [line for folder in found for line in unfinished.describe_unfinished(folder)]
    lines = [line for entry in sorted(path.iterdir()) for line in _brief(entry)]
    if not lines:
        raise UserError(
            f"{path}: no artifacts here; `dvc repro` makes them, in the repository's folder data"
        )
    return lines


def _brief(path: Path) -> list[str]:
    """A line on an entry of a folder of artifacts, without reading its images; none for what is not
    of this pipeline.
    """
    if path.is_dir():
        return _brief_folder(path)
    size = bytes_of(path.stat().st_size)
    try:
        if path.suffix == ".h5":
            found = reader(path)
            found.close()
            images = count(len(found), "image")
            skipped = f", {len(found.skipped)} left out as they failed" if found.skipped else ""
            return [f"{path.name}: {found.format} of {images}{skipped}, {size}"]
        if path.suffix == ".safetensors":
            header = read_header(path)
            return [
                f"{path.name}: {header['kind']} {header.get('method', '')}".rstrip() + f", {size}"
            ]
        if path.suffix in (".csv", ".json", ".part"):
            return [inspect(path)[0]]
    except UserError as error:
        return [str(error)]
    return []


def _brief_folder(path: Path) -> list[str]:
    """A line on a folder; none where it holds nothing of this pipeline."""
    inside = sorted(path.iterdir())
    try:
        if any((path / one).is_file() for one in (HEADER, FILE)) or unfinished.is_unfinished(path):
            return [f"{path.name}/: {_inspect_folder(path)[0]}"]
    except UserError as error:
        return [str(error)]
    found = [one.name for one in inside if one.suffix in (".csv", ".json", ".h5", ".safetensors")]
    return [f"{path.name}/: {', '.join(found)}"] if found else []


def _inspect_json(path: Path) -> list[str]:
    if path.name == HEADER:
        return describe_index(Index.load(path.parent))
    return (
        reports.describe_report(path.parent) if path.name == FILE else tables.describe_scores(path)
    )


def _missing(path: Path) -> str:
    """Why there may be nothing, and what to do."""
    parts = sorted(path.parent.glob(f"{path.name}*.part")) if path.parent.is_dir() else []
    if parts:
        return f"{path}: not there yet; it is being written ({bytes_of(parts[0].stat().st_size)} so far)"
    if path.parent.is_dir() and (
        there := sorted(one.name for one in path.parent.glob(f"*{path.suffix}") if path.suffix)
    ):
        return f"{path}: no such file; there are {', '.join(there[:8])}"
    return f"{path}: no such file or folder; `dvc repro` makes the artifacts"
