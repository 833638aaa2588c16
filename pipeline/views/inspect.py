"""Describe what the pipeline writes: artifacts, weights, scores, unfinished work.

A description is a sequence of lines, the first of which needs no image; those that begin with
`odd:` name what looks wrong.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.core.artifacts import IGNORE, ArtifactError, Reader, Record
from pipeline.core.weights import WeightsError, load_checkpoint, read_header, read_weights
from pipeline.data.index import HEADER, Index
from pipeline.errors import UserError, count
from pipeline.views.report_data import FILE, load

CHECKPOINT = "checkpoint.pt"


def listed(names: Iterable[str]) -> str:
    """Return the first five names, separated by commas."""
    names = list(names)
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])


def file_size(path: Path) -> str:
    """Return the size of a file in a readable unit."""
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def describe(path: Path) -> Iterator[str]:
    """Describe what is at `path`; raises UserError if it is missing or unknown."""
    if path.is_dir() and (path / HEADER).is_file():
        yield from describe_index(Index.load(path))
    elif path.is_dir():
        unfinished = [line for one in unfinished_folders(path) for line in describe_unfinished(one)]
        lines = unfinished or [line for one in sorted(path.iterdir()) for line in _brief(one)]
        if not lines:
            raise UserError(f"{path}: no artifacts here; `dvc repro` makes them in the folder data")
        yield from lines
    elif not path.is_file():
        parts = sorted(path.parent.glob(f"{path.name}*.part"))
        written = f"; it is being written ({file_size(parts[0])} so far)" if parts else ""
        raise UserError(f"{path}: no such file or folder{written or '; `dvc repro` makes it'}")
    elif path.suffix not in DESCRIBERS:
        raise UserError(f"{path}: unknown kind of file; known are {', '.join(DESCRIBERS)}")
    else:
        yield from DESCRIBERS[path.suffix](path)


def _brief(path: Path) -> list[str]:
    """Describe an entry of a folder by the first line of its description; skip foreign files."""
    if path.is_dir() and not (path / HEADER).is_file():
        files = [one.name for one in sorted(path.iterdir()) if one.is_file()]
        return [f"{path.name}/: {', '.join(files)}"] if files else []
    if not path.is_dir() and path.suffix not in DESCRIBERS:
        return []
    try:
        return [f"{path.name}: {next(describe(path))}"]
    except UserError as error:
        return [str(error)]


def measure(record: Record) -> dict[str, Any]:
    """Return the values of an image's arrays whose range over all images is of interest."""
    values: dict[str, Any] = {}
    for key, array in record.items():
        if key == "size":
            values["height"], values["width"] = array
        elif key in ("classes", "labels", "stability"):
            values["regions"] = len(array)
        elif key in ("seeds", "semantic", "segments", "pixels"):
            values["height"], values["width"] = array.shape
            kinds = {"foreground": (array > 0) & (array != IGNORE), "ignored": array == IGNORE}
            chosen = {"covered": array > 0} if key == "segments" else kinds
            values |= {f"share {kind}": where.mean() for kind, where in chosen.items()}
        if array.dtype.kind == "f" and array.size and key not in ("objects", "boxes"):
            moves = key == "displacement"
            values[key] = np.hypot(*array.astype(np.float32)) if moves else array
    return values


def class_ids(record: Record) -> np.ndarray:
    """Return the class ids that an image's maps, instances or labels have; none for segments."""
    labels = next((record[key] for key in ("seeds", "semantic", "pixels") if key in record), None)
    found = record.get("classes", record.get("labels", np.zeros(0, np.uint8)))
    if labels is not None:
        found = np.union1d(found, labels[(labels > 0) & (labels != IGNORE)] - 1)
    return np.unique(found)


def oddities(record: Record, classes: int) -> dict[str, Any]:
    """Return what may be odd about an image's arrays, and whether it is; classes: how many."""
    odd: dict[str, Any] = {"unknown classes": (class_ids(record) >= classes).any()}
    if (maps := record.get("cams", record.get("maps"))) is not None:
        odd["no class map"] = not len(maps)
        odd["a class map that is zero everywhere"] = not maps.any((1, 2)).all()
        odd["values outside [0, 1]"] = (maps < 0).any() or (maps > 1).any()
    if (features := record.get("features")) is not None:
        odd["the same features everywhere"] = not np.ptp(features, (1, 2)).any()
    if (boundary := record.get("boundary")) is not None:
        odd["boundary outside [0, 1]"] = (boundary < 0).any() or (boundary > 1).any()
        odd["a constant boundary"] = (boundary == boundary.flat[0]).all()
        odd["no displacement anywhere"] = not record["displacement"].any()
    if (seeds := record.get("seeds")) is not None:
        foreground, background = ((seeds > 0) & (seeds != IGNORE)).any(), (seeds == 0).any()
        odd["no seeds at all"] = not foreground and not background
        odd["no foreground seeds"] = background and not foreground
        odd["no background seeds"] = foreground and not background
    if "segments" in record:
        odd["no segment at all"] = not len(record["stability"])
        odd["segments without pixels"] = not _visible(record, "segments", "stability").all()
    if (labels := record.get("semantic")) is not None:
        foreground = ((labels > 0) & (labels != IGNORE)).any()
        visible = _visible(record, "instances", "classes")
        odd["an empty label map"] = not foreground
        odd["classes but no instance"] = foreground and not visible.any()
        odd["instances without pixels"] = not visible.all()
    return odd


def _visible(record: Record, key: str, numbered: str) -> np.ndarray:
    """Return which regions have a pixel, bool [N]: of an id map, or of masks that may overlap."""
    ids = record[key]
    numbers = np.arange(len(record[numbered])) + 1
    return np.asarray(ids.any((1, 2)) if ids.ndim == 3 else np.isin(numbers, ids))


def describe_artifact(path: Path) -> Iterator[str]:
    """Describe all images of an artifact: ranges of values, classes, and oddities by id.

    Reads one image at a time; an unreadable one is odd, and the others are still described.
    """
    reader, classes = Reader(path), Counter[int]()
    skipped = f", {len(reader.skipped)} skipped as they failed" if reader.skipped else ""
    images = f"{count(len(reader), 'image')}{skipped}, {count(len(reader.classes), 'class')}"
    yield f"{reader.format} of {images}, {file_size(path)}"
    ranges: dict[str, tuple[float, float]] = defaultdict(lambda: (inf, -inf))
    odd: dict[str, list[str]] = defaultdict(list)
    for name in reader:
        try:
            record = reader[name]
        except ArtifactError:
            odd["data that cannot be read"].append(name)
            continue
        for key, values in measure(record).items():
            low, high = ranges[key]
            floats = np.asarray(values, np.float64)
            ranges[key] = floats.min(initial=low), floats.max(initial=high)
        classes.update(class_ids(record).tolist())
        for oddity, is_odd in oddities(record, len(reader.classes)).items():
            if is_odd:
                odd[oddity].append(name)
    yield from (f"{key}: {low:.4g} to {high:.4g}" for key, (low, high) in ranges.items())
    if classes:
        named = {name: classes[c] for c, name in enumerate(reader.classes)}
        yield "images by class: " + ", ".join(f"{name} {n}" for name, n in named.items() if n)
        if absent := [name for name, n in named.items() if not n]:
            yield f"classes in no image: {', '.join(absent)}"
    for oddity, names in sorted(odd.items(), key=lambda entry: (-len(entry[1]), entry[0])):
        yield f"odd: {oddity} in {count(len(names), 'image')}: {listed(names)}"
    if not odd:
        yield "nothing odd" if len(reader) else "odd: no images at all"


def describe_index(index: Index) -> Iterator[str]:
    """Describe a dataset: images by split, masks, and images by class."""
    splits = Counter(image.split for image in index.values())
    tags = Counter(tag for image in index.values() for tag in image.tags)
    masks, instances = (sum(map(has, index)) for has in (index.has_masks, index.has_instances))
    parts = ", ".join(f"{n} {split}" for split, n in sorted(splits.items()))
    yield f"{count(len(index), 'image')}: {parts}"
    yield f"masks: {masks} semantic, {instances} with instances"
    yield from (f"  {name}: {count(tags[c], 'image')}" for c, name in enumerate(index.classes))
    untagged = [name for name, image in index.items() if not image.tags]
    odd = f"odd: no tags in {count(len(untagged), 'image')}: {listed(untagged)}"
    yield odd if untagged else "nothing odd"


def describe_weights(path: Path) -> Iterator[str]:
    """Describe a weights file: its header, and the number of tensors and values."""
    header = read_header(path)
    yield f"{header['kind']} {header.get('method', '')}".rstrip() + f", {file_size(path)}"
    yield from (f"  {key}: {value}" for key, value in header.items() if key != "kind")
    yield from _describe_tensors(read_weights(path)[0])


def describe_checkpoint(path: Path) -> Iterator[str]:
    """Describe a training's checkpoint: its step, first and last loss; also while it trains.

    Raises UserError if it cannot be read.
    """
    try:
        state = load_checkpoint(path)
        step, rows = state["step"], state["curve"]["rows"]
        tensors = {k: value for k, value in state["network"].items() if isinstance(value, Tensor)}
        ends = [*rows[:1], *rows[-1:]]
        losses = [f"{float(row['loss']):.4g} at step {row['step']}" for row in ends]
    except WeightsError as error:
        raise UserError(f"{error}; delete it to start over") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{path}: not a checkpoint ({error}); delete it to start over") from error
    yield f"checkpoint: {step} steps done; loss {', '.join(losses) or 'not logged yet'}"
    yield from _describe_tensors(tensors)


def _describe_tensors(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    values = sum(tensor.numel() for tensor in tensors.values())
    yield f"{count(len(tensors), 'tensor')}, {values / 1e6:.2f} million values"
    odd = [k for k, one in tensors.items() if one.is_floating_point() and not one.isfinite().all()]
    yield f"odd: not finite: {listed(odd)}" if odd else "nothing odd"


def describe_json(path: Path) -> Iterator[str]:
    """Describe index.json, report.json or the scores STEP.json; UserError for any other."""
    if path.name == HEADER:
        yield from describe_index(Index.load(path.parent))
    elif path.name == FILE:
        yield f"report of {', '.join(one.step for one in load(path).steps) or 'no scored step'}"
    else:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            scores = [(name, n) for values in content.values() for name, n in values.items()]
        except (ValueError, AttributeError) as error:
            remake = "make it again with `dvc repro -f scores`"
            raise UserError(f"{path}: no scores of this version; {remake}") from error
        none = "none, as no image has a ground-truth mask"
        yield f"scores: {', '.join(f'{name} {n}' for name, n in scores) or none}"


def describe_unfinished(folder: Path) -> Iterator[str]:
    """Describe one folder STAGE/FINGERPRINT: what is done, what is being written, what is odd."""
    fingerprint = folder.name.partition("-")[0]
    yield f"unfinished work of stage {folder.parent.name}, fingerprint {fingerprint}"
    done: list[int] = []
    try:
        if (folder / CHECKPOINT).is_file():
            yield from describe_checkpoint(folder / CHECKPOINT)
        for path in sorted(folder.glob("shard-*.h5")):
            try:
                shard = Reader(path)
            except ArtifactError:
                yield f"odd: damaged, will be made again: {path.name}"
                continue
            shard.close()
            done.append(len(shard))
            if shard.skipped:
                yield f"skipped, as they failed: {listed(shard.skipped)}"
        if done:
            yield f"done: {count(sum(done), 'image')} in {count(len(done), 'shard')}"
        for part in sorted(folder.glob("*.part")):
            yield f"being written: {part.name}, {file_size(part)} so far"
    except FileNotFoundError:
        yield "removed meanwhile: the stage has finished"


def unfinished_folders(root: Path) -> list[Path]:
    """Return the folders of unfinished work at, in, or two levels below `root`."""
    folders = [root, *sorted(root.glob("*/")), *sorted(root.glob("*/*/"))]
    return [
        path for path in folders if (path / CHECKPOINT).is_file() or any(path.glob("shard-*.h5*"))
    ]


DESCRIBERS: Mapping[str, Callable[[Path], Iterator[str]]] = {
    ".h5": describe_artifact,
    ".safetensors": describe_weights,
    ".pt": describe_checkpoint,
    ".json": describe_json,
    ".part": lambda path: iter([f"being written, {file_size(path)} so far; not readable yet"]),
}
