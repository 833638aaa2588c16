"""From a source folder, or from nothing, to the index that every stage reads."""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.datasets import scenes
from pipeline.datasets.archive import MASKS
from pipeline.datasets.builtin import IMAGES, draw_all
from pipeline.datasets.checks import Options, choose, examine, read_source
from pipeline.datasets.index import FORMAT, HEADER, TABLE, Index
from pipeline.datasets.problems import DatasetError, Problem, error, stop_at_errors
from pipeline.datasets.processes import Progress
from pipeline.label_map import IGNORE

log = logging.getLogger(__name__)
SHOWN = 5


def build(
    format: str,  # noqa: A002
    source: Path,
    out: Path,
    *,
    classes: Sequence[str] = (),
    val: float = 0.0,
    seed: int = 0,
    pictures: int = 480,
    lists: Mapping[str, str] | None = None,
    annotations: Mapping[str, tuple[str, str]] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Index:
    """Check a source and write its index into the folder `out`, with pictures and masks where they have to be
    drawn.

    `format` is scenes (draws `pictures` scenes of set `seed`, needs no source), voc, coco or folder.
    `classes` chooses a subset and its order, the others become background. `val` is the share held out where
    the source names no splits. `lists` maps splits to lists of voc, `annotations` to (json, picture folder)
    of coco. `progress(done, total)` is called after every picture. Equal input gives equal bytes for any
    number of `workers`. Raises DatasetError listing all errors at once; logs warnings.
    """
    source, out = Path(source), Path(out)
    if not 0 <= val < 1:
        raise DatasetError(error("dataset.val", f"is {val}", "give a share from 0 to below 1"))
    if format == "scenes":
        index = _build_scenes(out, classes, val, seed, pictures, workers, progress)
    else:
        index = _build_source(
            format, source, out, classes, val, Options(lists, annotations), workers, progress
        )
    index.save(out)
    return index


def _build_scenes(
    out: Path,
    wanted: Sequence[str],
    val: float,
    seed: int,
    pictures: int,
    workers: int,
    progress: Progress | None,
) -> Index:
    choice = choose(scenes.CLASSES, wanted)
    if pictures < 1:
        raise DatasetError(error("dataset.scenes.pictures", f"is {pictures}", "give at least 1"))
    _clear(out)
    labels = {k: choice.labels[name] - 1 for k, name in enumerate(scenes.CLASSES) if name in choice.labels}
    drawn = draw_all(out, pictures, seed, val, labels, workers, progress)
    return Index(choice.classes, drawn, out, out / MASKS, choice.values)


def _build_source(
    name: str,
    source: Path,
    out: Path,
    wanted: Sequence[str],
    val: float,
    options: Options,
    workers: int,
    progress: Progress | None,
) -> Index:
    found = read_source(name, source, options)
    if out.resolve() == source.resolve():
        raise DatasetError(error(out, "is the source folder itself", "write the index elsewhere"))
    stop = [problem for problem in found.problems if problem.level == "error"]
    try:
        choice = choose(found.classes, wanted)
    except DatasetError as problem:
        raise DatasetError(stop + problem.problems) from None
    _clear(out)
    pictures, problems = examine(found, choice, val=val, out=out, workers=workers, progress=progress)
    stop_at_errors(problems)
    _log(problems)
    if any(entry.render for entry in found.entries):
        drawn = {0: 0, **{label: label for label in choice.labels.values()}, IGNORE: IGNORE}
        return Index(choice.classes, pictures, source, out / MASKS, drawn)
    return Index(choice.classes, pictures, source, source, choice.values)


def _clear(out: Path) -> None:
    """Take away what an earlier build wrote into the folder, and nothing else."""
    try:
        ours = json.loads((out / HEADER).read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if ours:
        for file in (HEADER, TABLE, MASKS):
            (out / file).unlink(missing_ok=True)
        shutil.rmtree(out / IMAGES, ignore_errors=True)


def _log(problems: Sequence[Problem]) -> None:
    """Log warnings, of each kind the first few."""
    seen: Counter[str] = Counter()
    for problem in problems:
        seen[problem.do] += 1
        if seen[problem.do] <= SHOWN:
            log.warning("%s", problem)
    for kind, count in seen.items():
        if count > SHOWN:
            log.warning("%d more of: %s (`weakmask check` lists them all)", count - SHOWN, kind)
