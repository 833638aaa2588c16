"""Describe what the pipeline writes: artifacts, weights, tables, scores, unfinished work.

A description is a list of lines; those that begin with `odd:` name what looks wrong.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy as np
from torch import Tensor

from pipeline.core.artifacts import ArtifactError, Reader, Record
from pipeline.core.weights import WeightsError, load_checkpoint, read_header, read_weights
from pipeline.data.index import HEADER, Index
from pipeline.errors import UserError
from pipeline.views.charts import number
from pipeline.views.report import percent
from pipeline.views.report_data import FILE, TITLES, load, read_rows

CHECKPOINT = "checkpoint.pt"
LISTED = 5
"""How many names are listed."""


def count(number: int, one: str, many: str = "") -> str:
    """Return `1 image`, `2 images`; many: a plural that does not end in s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def listed(names: Sequence[str]) -> str:
    """Return the first few names, separated by commas."""
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")


def file_size(path: Path) -> str:
    """Return the size of a file in a readable unit."""
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def describe(path: Path) -> list[str]:
    """Describe what is at `path`; raises UserError if it is missing or unknown."""
    if path.is_dir():
        return _describe_folder(path)
    if path.name.endswith(".part") and path.is_file():
        return [f"{path.name}: being written, {file_size(path)} so far; not readable yet"]
    if not path.is_file():
        parts = sorted(path.parent.glob(f"{path.name}*.part"))
        written = f"; it is being written ({file_size(parts[0])} so far)" if parts else ""
        raise UserError(f"{path}: no such file or folder{written or '; `dvc repro` makes it'}")
    if path.suffix not in DESCRIBERS:
        raise UserError(f"{path}: unknown kind of file; known are {', '.join(DESCRIBERS)}")
    return DESCRIBERS[path.suffix](path)


def _describe_folder(path: Path) -> list[str]:
    if (path / HEADER).is_file():
        return describe_index(Index.load(path))
    if folders := unfinished_folders(path):
        return [line for folder in folders for line in describe_unfinished(folder)]
    lines = [line for entry in sorted(path.iterdir()) for line in _brief(entry)]
    if not lines:
        raise UserError(f"{path}: no artifacts here; `dvc repro` makes them in the folder data")
    return lines


def _brief(path: Path) -> list[str]:
    """Describe an entry of a folder in a line, without reading its images; skip foreign files."""
    try:
        if path.is_dir():
            if (path / HEADER).is_file():
                return [f"{path.name}/: {describe(path)[0]}"]
            files = [one.name for one in sorted(path.iterdir()) if one.suffix in DESCRIBERS]
            return [f"{path.name}/: {', '.join(files)}"] if files else []
        if path.suffix == ".h5":
            reader = Reader(path)
            reader.close()
            skipped = f", {len(reader.skipped)} skipped as they failed" if reader.skipped else ""
            images = f"{count(len(reader), 'image')}{skipped}, {file_size(path)}"
            return [f"{path.name}: {reader.format} of {images}"]
        if path.suffix == ".safetensors":
            header = read_header(path)
            kind = f"{header['kind']} {header.get('method', '')}".rstrip()
            return [f"{path.name}: {kind}, {file_size(path)}"]
        return describe(path)[:1] if path.suffix in (*DESCRIBERS, ".part") else []
    except UserError as error:
        return [str(error)]


@dataclass(slots=True)
class Stats:
    """What one image adds to the description of an artifact: values whose range is of interest,
    whether something is odd, and class ids.
    """

    values: dict[str, np.ndarray | int | float]
    odd: dict[str, bool]
    classes: set[int] = field(default_factory=set)


def _class_maps(maps: np.ndarray, labels: np.ndarray, size: np.ndarray, classes: int) -> Stats:
    odd = {
        "no class map": not len(maps),
        "a class map that is zero everywhere": not maps.any((1, 2)).all(),
        "values outside [0, 1]": bool((maps < 0).any() or (maps > 1).any()),
        "unknown classes": bool((labels >= classes).any()),
    }
    height, width = size.tolist()
    values = {"height": height, "width": width, "maps": len(maps), "values": maps}
    return Stats(values, odd, set(labels.tolist()))


def _label_map(labels: np.ndarray, classes: int) -> Stats:
    counts = np.bincount(labels.ravel(), minlength=256)
    shares = {"background": counts[0], "foreground": counts[1:255].sum(), "ignored": counts[255]}
    values = {f"share of {kind}": n / max(labels.size, 1) for kind, n in shares.items()}
    odd = {"unknown classes": bool(counts[classes + 1 : 255].any())}
    height, width = labels.shape
    found = set(np.flatnonzero(counts[1 : classes + 1]).tolist())
    return Stats({"height": height, "width": width, **values}, odd, found)


def _seeds(record: Record, classes: int) -> Stats:
    stats = _label_map(record["seeds"], classes)
    background, foreground = (
        bool(stats.values[f"share of {kind}"]) for kind in ("background", "foreground")
    )
    stats.odd |= {
        "no seeds at all": not foreground and not background,
        "no foreground seeds": background and not foreground,
        "no background seeds": foreground and not background,
    }
    return stats


def _fields(record: Record, classes: int) -> Stats:
    boundary, displacement = record["boundary"], record["displacement"].astype(np.float32)
    odd = {
        "boundary outside [0, 1]": bool((boundary < 0).any() or (boundary > 1).any()),
        "a constant boundary": bool((boundary == boundary.flat[0]).all()),
        "no displacement anywhere": not displacement.any(),
    }
    height, width = boundary.shape
    lengths = np.hypot(*displacement)
    values = {"boundary": boundary, "displacement in cells": lengths}
    return Stats({"grid height": height, "grid width": width, **values}, odd)


def _segments(record: Record, classes: int) -> Stats:
    ids, stability = record["segments"], record["stability"]
    areas = np.bincount(ids.ravel(), minlength=len(stability) + 1)
    values = {
        "segments": len(stability),
        "stability": stability,
        "predicted IoU": record["iou"],
        "area in pixels": areas[1:],
        "share without a segment": areas[0] / max(ids.size, 1),
    }
    odd = {"no segment at all": not len(stability), "segments without pixels": not areas[1:].all()}
    height, width = ids.shape
    return Stats({"height": height, "width": width, **values}, odd)


def _instances(record: Record, classes: int) -> Stats:
    """Describe a label map with instances: an id map, or masks that may overlap."""
    stats, ids, owners = (
        _label_map(record["semantic"], classes),
        record["instances"],
        record["classes"],
    )
    if ids.ndim == 2:
        visible = np.bincount(ids.ravel(), minlength=len(owners) + 1)[1:] > 0
    else:
        visible = np.asarray(ids.any((1, 2)))
    foreground = bool(stats.values["share of foreground"])
    stats.values |= {"instances": len(owners), "instance scores": record["scores"]}
    stats.odd["unknown classes"] |= bool((owners >= classes).any())
    stats.odd |= {
        "an empty label map": not foreground,
        "classes but no instance": foreground and not visible.any(),
        "instances without pixels": not visible.all(),
    }
    return stats


STATS: Mapping[str, Callable[[Record, int], Stats]] = {
    "segments": _segments,
    "cams": lambda one, classes: _class_maps(one["cams"], one["labels"], one["size"], classes),
    "seeds": _seeds,
    "fields": _fields,
    "walk": lambda one, classes: _class_maps(one["maps"], one["classes"], one["size"], classes),
    "labels": _instances,
    "predictions": _instances,
}
"""Format -> what describes a record, from it and the number of classes."""


def describe_artifact(reader: Reader) -> list[str]:
    """Describe all images of an artifact: sizes, ranges of values, classes, and oddities by id.

    Reads one image at a time; an unreadable one is odd, and the others are still described.
    """
    size = f"{count(len(reader), 'image')}, {count(len(reader.classes), 'class', 'classes')}"
    lines, classes = [f"{reader.format}: {size}"], Counter[int]()
    ranges: dict[str, tuple[float, float]] = {}
    odd: dict[str, list[str]] = {}
    for name in reader:
        try:
            stats = STATS[reader.format](reader[name], len(reader.classes))
        except ArtifactError:
            stats = Stats({}, {"data that cannot be read": True})
        for key, values in stats.values.items():
            floats = np.asarray(values, np.float64)
            low, high = ranges.get(key, (inf, -inf))
            ranges[key] = floats.min(initial=low), floats.max(initial=high)
        classes.update(stats.classes)
        for oddity in (text for text, is_odd in stats.odd.items() if is_odd):
            odd.setdefault(oddity, []).append(name)
    lines += [
        f"{key}: {low:.4g} to {high:.4g}" for key, (low, high) in ranges.items() if low <= high
    ]
    if classes:
        named = {name: classes[c] for c, name in enumerate(reader.classes)}
        found = [f"{name} {n}" for name, n in named.items() if n]
        lines.append(f"images by class: {', '.join(found) or 'none'}")
        if absent := [name for name, n in named.items() if not n]:
            lines.append(f"classes in no image: {', '.join(absent)}")
    for oddity, names in sorted(odd.items(), key=lambda entry: (-len(entry[1]), entry[0])):
        lines.append(f"odd: {oddity} in {count(len(names), 'image')}: {listed(names)}")
    if not len(reader):
        return [*lines, "odd: no images at all"]
    return lines if odd else [*lines, "nothing odd"]


def describe_index(index: Index) -> list[str]:
    """Describe a dataset: images by split, masks, and images by class."""
    splits = Counter(image.split for image in index.values())
    tags = Counter(tag for image in index.values() for tag in image.tags)
    masks = sum(index.has_masks(name) for name in index)
    instances = sum(index.has_instances(name) for name in index)
    counts = ", ".join(f"{n} {split}" for split, n in sorted(splits.items()))
    untagged = [name for name, image in index.items() if not image.tags]
    return [
        f"dataset: {len(index)} images, {counts}",
        f"masks: {masks} semantic, {instances} with instances",
        *(f"  {name}: {tags[number]} images" for number, name in enumerate(index.classes)),
        f"odd: no tags in {count(len(untagged), 'image')}: {listed(untagged)}"
        if untagged
        else "nothing odd",
    ]


def describe_weights(path: Path) -> list[str]:
    """Describe a weights file: its header, and the number of tensors and values."""
    tensors, header = read_weights(path)
    header = dict(header)
    lines = [f"{header.pop('kind')}: {_tensor_count(tensors)}"]
    return [*lines, *(f"  {key}: {value}" for key, value in header.items()), *_not_finite(tensors)]


def describe_checkpoint(path: Path) -> list[str]:
    """Describe a training's checkpoint: its step, first and last loss; also while it trains.

    Raises UserError if it cannot be read.
    """
    try:
        state = load_checkpoint(path)
        step, rows = state["step"], state["curve"]["rows"]
        tensors = {k: value for k, value in state["network"].items() if isinstance(value, Tensor)}
        losses = [
            f"{float(row['loss']):.4g} at step {row['step']}" for row in (*rows[:1], *rows[-1:])
        ]
    except WeightsError as error:
        raise UserError(f"{error}; delete it to start over") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{path}: not a checkpoint ({error}); delete it to start over") from error
    lines = [f"checkpoint: {step} steps done, {_tensor_count(tensors)}"]
    lines += [f"loss: {', '.join(losses)}"] if losses else []
    return [*lines, *_not_finite(tensors)]


def _tensor_count(tensors: Mapping[str, Tensor]) -> str:
    values = sum(tensor.numel() for tensor in tensors.values())
    return f"{count(len(tensors), 'tensor')}, {values / 1e6:.2f} million values"


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    floats = {name: one for name, one in tensors.items() if one.is_floating_point()}
    odd = [name for name, tensor in floats.items() if not tensor.isfinite().all()]
    return [f"odd: not finite: {listed(odd)}" if odd else "nothing odd"]


def describe_scores(path: Path) -> list[str]:
    """Describe STEP.json; raises UserError if it holds no scores."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        steps = {step: dict(values) for step, values in content.items()}
    except (ValueError, TypeError, AttributeError) as error:
        remake = "make it again with `dvc repro -f scores`"
        raise UserError(f"{path}: no scores of this version; {remake}") from error
    none = "none, as no image has a ground-truth mask"
    return [
        f"scores of {step}: " + (", ".join(f"{name} {n}" for name, n in values.items()) or none)
        for step, values in steps.items()
    ]


def describe_table(path: Path) -> list[str]:
    """Describe a CSV file: rows, ranges of its columns, and values that are not finite."""
    rows = read_rows(path)
    if not rows:
        return [f"{path.stem}: no rows", "odd: no rows"]
    lines, odd = [f"{path.stem}: {count(len(rows), 'row')}, columns {', '.join(rows[0])}"], []
    for name in (column for column in rows[0] if column != "id"):
        texts = [row[name] for row in rows if row[name]]
        values = [value for value in map(number, texts) if value is not None]
        if values:
            empty = f", {len(rows) - len(texts)} empty" if len(texts) < len(rows) else ""
            lines.append(f"{name}: {min(values):.4g} to {max(values):.4g}{empty}")
            if broken := len(texts) - len(values):
                odd.append(f"odd: {name} is not a finite number in {count(broken, 'row')}")
    return [*lines, *(odd or ["nothing odd"])]


def describe_report(path: Path) -> list[str]:
    """Describe report.json: mIoU per step; raises UserError if damaged or of another version."""
    steps = load(path).steps
    return [
        f"report: {count(len(steps), 'scored step')}",
        *(f"{TITLES[one.step].lower()}: mIoU {percent(one.miou)}" for one in steps),
    ]


def describe_unfinished(folder: Path) -> list[str]:
    """Describe one folder STAGE/FINGERPRINT: what is done, what is being written, what is odd."""
    fingerprint = folder.name.partition("-")[0]
    lines = [f"unfinished work of stage {folder.parent.name}, fingerprint {fingerprint}"]
    try:
        if (folder / CHECKPOINT).is_file():
            lines += describe_checkpoint(folder / CHECKPOINT)
        done: list[int] = []
        skipped: list[str] = []
        broken: list[str] = []
        for path in sorted(folder.glob("shard-*.h5")):
            try:
                shard = Reader(path)
            except ArtifactError:
                broken.append(path.name)
                continue
            shard.close()
            done.append(len(shard))
            skipped += shard.skipped
        if done:
            lines.append(f"done: {count(sum(done), 'image')} in {count(len(done), 'shard')}")
        lines += [f"skipped, as they failed: {listed(sorted(skipped))}"] if skipped else []
        lines += [f"odd: damaged, will be made again: {listed(broken)}"] if broken else []
        for part in sorted(folder.glob("*.part")):
            lines.append(f"being written: {part.name}, {file_size(part)} so far")
    except FileNotFoundError:
        lines.append("removed meanwhile: the stage has finished")
    return lines


def unfinished_folders(root: Path) -> list[Path]:
    """Return the folders of unfinished work at, in, or two levels below `root`."""
    folders = [root, *sorted(root.glob("*/")), *sorted(root.glob("*/*/"))]
    return [
        path for path in folders if (path / CHECKPOINT).is_file() or any(path.glob("shard-*.h5*"))
    ]


def _describe_json(path: Path) -> list[str]:
    if path.name == HEADER:
        return describe_index(Index.load(path.parent))
    return describe_report(path) if path.name == FILE else describe_scores(path)


DESCRIBERS: Mapping[str, Callable[[Path], list[str]]] = {
    ".h5": lambda path: describe_artifact(Reader(path)),
    ".safetensors": describe_weights,
    ".pt": describe_checkpoint,
    ".csv": describe_table,
    ".json": _describe_json,
}
