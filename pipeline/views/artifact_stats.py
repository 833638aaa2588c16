"""What an artifact contains in numbers, and what looks wrong with it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np

from pipeline.core.artifacts import ArtifactError, Reader, Record

LISTED = 5
"""How many names are listed."""


def count(number: int, one: str, many: str = "") -> str:
    """Return `1 image`, `2 images`; many: a plural that does not end in s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def listed(names: Sequence[str]) -> str:
    """Return the first few names, separated by commas."""
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")


@dataclass(slots=True)
class Stats:
    """What one image adds to a description: values by name, classes, and whether it is odd."""

    values: dict[str, np.ndarray]
    odd: dict[str, bool]
    classes: set[int] = field(default_factory=set)


def _class_maps(maps: np.ndarray, labels: np.ndarray, record: Record, classes: int) -> Stats:
    height, width = (int(n) for n in record["size"])
    peaks = (
        np.nan_to_num(maps.reshape(len(maps), -1)).max(1, initial=0) if len(maps) else np.ones(1)
    )
    odd = {
        "no class map": not len(maps),
        "a class map that is zero everywhere": bool((peaks == 0).any()),
        "NaN or infinity": not np.isfinite(maps).all(),
        "values outside [0, 1]": bool((maps < 0).any() or (maps > 1).any()),
        "numbers of labels and maps differ": len(labels) != len(maps),
        "unknown classes": bool((labels >= classes).any()),
        "a map off the stride-4 grid": maps.shape[1:]
        != ((height - 1) // 4 + 1, (width - 1) // 4 + 1),
    }
    values = {"maps": np.array(len(maps)), "values": maps}
    return Stats(_size(height, width) | values, odd, set(labels.tolist()))


def _cams(record: Record, classes: int) -> Stats:
    return _class_maps(record["cams"], record["labels"], record, classes)


def _walk(record: Record, classes: int) -> Stats:
    return _class_maps(record["maps"], record["classes"], record, classes)


def _label_map(labels: np.ndarray, classes: int) -> Stats:
    counts = np.bincount(labels.ravel(), minlength=256)
    shares = {"background": counts[0], "foreground": counts[1:255].sum(), "ignored": counts[255]}
    values = {f"share of {kind}": n / max(labels.size, 1) for kind, n in shares.items()}
    odd = {"unknown classes": bool(counts[classes + 1 : 255].any())}
    found = set(np.flatnonzero(counts[1 : classes + 1]).tolist())
    return Stats(_size(*labels.shape) | values, odd, found)


def _seeds(record: Record, classes: int) -> Stats:
    stats = _label_map(record["seeds"], classes)
    background, foreground, ignored = (
        stats.values[f"share of {kind}"] > 0 for kind in ("background", "foreground", "ignored")
    )
    stats.odd |= {
        "no seeds at all": bool(ignored and not foreground and not background),
        "no foreground seeds": bool(background and not foreground),
        "no background seeds": bool(foreground and not background),
    }
    return stats


def _fields(record: Record, classes: int) -> Stats:
    boundary, displacement = record["boundary"], record["displacement"].astype(np.float32)
    values = {"boundary": boundary, "displacement in cells": np.hypot(*displacement)}
    odd = {
        "NaN or infinity": not (np.isfinite(boundary).all() and np.isfinite(displacement).all()),
        "boundary outside [0, 1]": bool((boundary < 0).any() or (boundary > 1).any()),
        "a constant boundary": bool(boundary.size and (boundary == boundary.flat[0]).all()),
        "no displacement anywhere": not displacement.any(),
        "boundary and displacement differ in size": displacement.shape[1:] != boundary.shape,
    }
    return Stats(_size(boundary.shape[0], boundary.shape[1], "grid ") | values, odd)


def _segments(record: Record, classes: int) -> Stats:
    ids, stability, iou = record["segments"], record["stability"], record["iou"]
    areas = np.bincount(ids.ravel(), minlength=len(stability) + 1)
    values = {
        "segments": np.array(len(stability)),
        "stability": stability,
        "predicted IoU": iou,
        "area in pixels": areas[1:],
        "share without a segment": areas[0] / max(ids.size, 1),
    }
    odd = {
        "no segment at all": not len(stability),
        "segments without pixels": not areas[1:].all(),
        "segment ids without a stability": len(areas) > len(stability) + 1,
        "numbers of predicted IoUs and segments differ": len(iou) != len(stability),
        "embeddings that are not finite": not np.isfinite(record["embeddings"]).all(),
    }
    return Stats(_size(*ids.shape) | values, odd)


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
    foreground, scores = bool(stats.values["share of foreground"] > 0), record["scores"]
    stats.values |= {"instances": np.array(len(owners)), "instance scores": scores}
    stats.odd["unknown classes"] |= bool((owners >= classes).any())
    stats.odd |= {
        "an empty label map": not foreground,
        "classes but no instance": foreground and not visible.any(),
        "instances without a class": len(visible) > len(owners),
        "instances without pixels": not visible[: len(owners)].all(),
        "numbers of scores and instances differ": len(scores) != len(owners),
        "scores that are not finite": not np.isfinite(scores).all(),
    }
    return stats


def _size(height: int, width: int, of: str = "") -> dict[str, np.ndarray]:
    return {f"{of}height": np.array(height), f"{of}width": np.array(width)}


STATS: Mapping[str, Callable[[Record, int], Stats]] = {
    "segments": _segments,
    "cams": _cams,
    "seeds": _seeds,
    "fields": _fields,
    "walk": _walk,
    "labels": _instances,
    "predictions": _instances,
}


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
            finite = values[np.isfinite(values)].astype(np.float64)
            low, high = ranges.get(key, (inf, -inf))
            low, high = min(low, finite.min(initial=inf)), max(high, finite.max(initial=-inf))
            ranges[key] = low, high
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
        lines.append("odd: no images at all")
    return lines if len(lines) > 1 and lines[-1].startswith("odd: ") else [*lines, "nothing odd"]
