"""What an artefact holds and what is odd about it, in words and as one picture."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from pipeline.datasets.index import Index
from pipeline.instances.masks import exclusive_record
from pipeline.views import overlays, sheets
from pipeline.weights import read_weights

Item = Mapping[str, np.ndarray]
Panels = list[tuple[str, np.ndarray]]
Entry = TypeVar("Entry")
SHOWN = 5
"""How many pictures are named for each oddity."""


class Artefact(Protocol):
    """What is needed of a reader: a mapping of picture id to arrays that knows its format and classes."""

    @property
    def format(self) -> str:
        """What it holds: a key of store.LAYOUTS."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """Names by class id."""
        ...

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...
    def __getitem__(self, name: str, /) -> Item: ...


@dataclass(slots=True)
class Facts:
    """What one picture adds: values by name, pixels by kind, classes that occur, and oddities."""

    values: dict[str, np.ndarray]
    pixels: dict[str, int] = field(default_factory=dict)
    classes: set[int] = field(default_factory=set)
    oddities: list[str] = field(default_factory=list)


def describe(reader: Artefact) -> list[str]:
    """Lines of text: kind and number of pictures, sizes, ranges of values, classes, and oddities with names.

    Reads each picture once; memory does not grow with their number. Raises ValueError for an unknown format.
    """
    look = _known(FACTS, reader.format)
    ranges: dict[str, tuple[float, float]] = {}
    pixels, classes = Counter[str](), Counter[int]()
    odd: dict[str, list[str]] = {}
    odd_count = Counter[str]()
    for name in reader:
        facts = look(reader[name], len(reader.classes))
        for key, values in facts.values.items():
            finite = values[np.isfinite(values)].astype(np.float64)
            low, high = ranges.get(key, (inf, -inf))
            ranges[key] = float(min(low, finite.min(initial=inf))), float(max(high, finite.max(initial=-inf)))
        pixels.update(facts.pixels)
        classes.update(facts.classes)
        for oddity in facts.oddities:
            odd_count[oddity] += 1
            if odd_count[oddity] <= SHOWN:
                odd.setdefault(oddity, []).append(name)
    size = f"{_count(len(reader), 'picture')}, {_count(len(reader.classes), 'class', 'classes')}"
    lines = [f"{reader.format}: {size}"]
    if not len(reader):
        return [*lines, "odd: no pictures at all"]
    lines += [f"{key}: {low:.4g} to {high:.4g}" for key, (low, high) in ranges.items() if low <= high]
    whole = sum(pixels.values())
    if whole:
        lines.append("pixels: " + ", ".join(f"{100 * n / whole:.1f} % {kind}" for kind, n in pixels.items()))
    if reader.format not in CLASSLESS:
        lines += _class_lines(classes, reader.classes)
    for oddity in sorted(odd, key=lambda key: (-odd_count[key], key)):
        more = ", ..." if odd_count[oddity] > SHOWN else ""
        lines.append(
            f"odd: {oddity} in {_count(odd_count[oddity], 'picture')}: {', '.join(odd[oddity])}{more}"
        )
    return lines if odd else [*lines, "nothing odd"]


def describe_index(index: Index) -> list[str]:
    """Lines of text on a dataset: pictures by split, sizes, masks, and how many pictures have each class."""
    splits = Counter(picture.split for picture in index.values())
    tags = Counter(tag for picture in index.values() for tag in picture.tags)
    sides = sorted({(picture.height, picture.width) for picture in index.values()})
    masks = sum(index.has_masks(name) for name in index)
    instances = sum(index.has_instances(name) for name in index)
    lines = [
        f"dataset: {len(index)} pictures, "
        + ", ".join(f"{n} {split}" for split, n in sorted(splits.items())),
        f"sizes: {len(sides)} different, {sides[0]} to {sides[-1]} (height, width)"
        if sides
        else "sizes: none",
        f"masks: {masks} semantic, {instances} with instances",
        *(f"  {name}: {tags[number]} pictures" for number, name in enumerate(index.classes)),
    ]
    untagged = [name for name, picture in index.items() if not picture.tags]
    return (
        [*lines, f"odd: {len(untagged)} pictures without tags: {', '.join(untagged[:SHOWN])}"]
        if untagged
        else lines
    )


def describe_weights(path: Path) -> list[str]:
    """Lines of text on a weights file: its header, and how many tensors and values it holds."""
    tensors, header = read_weights(path)
    values = sum(tensor.numel() for tensor in tensors.values())
    odd = [
        name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    lines = [f"{header['kind']}: {len(tensors)} tensors, {values / 1e6:.2f} million values"]
    lines += [f"  {key}: {value}" for key, value in header.items() if key != "kind"]
    return [*lines, f"odd: not finite: {', '.join(odd[:SHOWN])}"] if odd else lines


def draw(format_: str, item: Item, image: np.ndarray, classes: Sequence[str], side: int = 360) -> np.ndarray:
    """One sheet of everything that an artefact holds about a picture, uint8 RGB.

    format_: one of PANELS; item: arrays of the picture; image: uint8 [H,W,3];
    side: the longer side of a panel in pixels. Raises ValueError for an unknown format.
    """
    drawn = _known(PANELS, format_)(item, image, classes, side)
    captioned = [sheets.captioned(panel, title) for title, panel in drawn]
    across = 4 if len(captioned) != 5 else 3
    rows = [captioned[i : i + across] for i in range(0, len(captioned), across)]
    found = [item[key] for key in ("seeds", "semantic") if key in item]
    keys = sheets.legend(found, classes)
    return sheets.sheet(rows, [""] * len(rows), keys=[keys] + [()] * (len(rows) - 1))


def _cams(item: Item, classes: int) -> Facts:
    cams, labels = item["cams"], item["labels"]
    H, W = (int(n) for n in item["size"])
    facts = Facts({**_size(H, W), "maps": np.array(len(cams)), "values": cams}, {}, set(labels.tolist()))
    peaks = np.nan_to_num(cams.reshape(len(cams), -1)).max(1, initial=0) if len(cams) else np.zeros(0)
    facts.oddities = _those(
        {
            "no class map": not len(cams),
            "a class map that is zero everywhere": bool((peaks == 0).any()),
            "NaN or infinity": not np.isfinite(cams).all(),
            "values outside [0, 1]": bool((cams < 0).any() or (cams > 1).any()),
            "as many labels as maps are not there": len(labels) != len(cams),
            "unknown classes": bool((labels >= classes).any()),
            "a map that is not on the stride-4 grid": cams.shape[1:] != ((H - 1) // 4 + 1, (W - 1) // 4 + 1),
        }
    )
    return facts


def _seeds(item: Item, classes: int) -> Facts:
    facts = _label_facts(item["seeds"], classes)
    foreground, ignored = facts.pixels["foreground"], facts.pixels["ignored"]
    facts.oddities += _those(
        {
            "no seeds at all": ignored == item["seeds"].size,
            "no foreground seeds": not foreground and ignored < item["seeds"].size,
            "no background seeds": not facts.pixels["background"] and bool(foreground),
        }
    )
    return facts


def _fields(item: Item, classes: int) -> Facts:
    boundary, displacement = item["boundary"], item["displacement"].astype(np.float32)
    h, w = boundary.shape
    lengths = np.hypot(*displacement)
    facts = Facts({**_size(h, w, "grid "), "boundary": boundary, "displacement in cells": lengths})
    facts.oddities = _those(
        {
            "NaN or infinity": not (np.isfinite(boundary).all() and np.isfinite(displacement).all()),
            "boundary outside [0, 1]": bool((boundary < 0).any() or (boundary > 1).any()),
            "the same boundary everywhere": bool(boundary.size)
            and bool((boundary == boundary.flat[0]).all()),
            "no displacement anywhere": not displacement.any(),
            "boundary and displacement of different sizes": displacement.shape != (2, h, w),
        }
    )
    return facts


def _segments(item: Item, classes: int) -> Facts:
    ids, stability, iou = item["segments"], item["stability"], item["iou"]
    areas = np.bincount(ids.ravel(), minlength=len(stability) + 1)
    facts = Facts(
        _size(*ids.shape)
        | {"segments": np.array(len(stability)), "stability": stability, "predicted IoU": iou}
        | {"area in pixels": areas[1:], "embeddings": np.array(item["embeddings"].size)},
        {"in a segment": int(areas[1:].sum()), "in none": int(areas[0])},
    )
    facts.oddities = _those(
        {
            "no segment at all": not len(stability),
            "segments without pixels": not areas[1:].all(),
            "segment ids without a stability": len(areas) > len(stability) + 1,
            "as many predicted IoUs as segments are not there": len(iou) != len(stability),
            "embeddings that are not finite": not np.isfinite(item["embeddings"]).all(),
        }
    )
    return facts


def _labels(item: Item, classes: int) -> Facts:
    ids = item["instances"]
    there = np.bincount(ids.ravel(), minlength=len(item["classes"]) + 1)[1:].astype(bool)
    return _masks(item, there, classes)


def _predictions(item: Item, classes: int) -> Facts:
    return _masks(item, np.asarray(item["instances"].any((1, 2))), classes)


def _masks(item: Item, there: np.ndarray, classes: int) -> Facts:
    """Facts on a label map and its instances; there: bool [N], which of these have a pixel."""
    facts, owners, scores = _label_facts(item["semantic"], classes), item["classes"], item["scores"]
    facts.values |= {"instances": np.array(len(owners)), "instance scores": scores}
    facts.oddities += _those(
        {
            "an empty label map": not facts.pixels["foreground"],
            "classes but no instance": bool(facts.pixels["foreground"]) and not there.any(),
            "instances without a class": len(there) > len(owners),
            "instances without pixels": not there[: len(owners)].all(),
            "unknown classes": bool((owners >= classes).any()),
            "as many scores as instances are not there": len(scores) != len(owners),
            "scores that are not finite": not np.isfinite(scores).all(),
        }
    )
    return facts


def _label_facts(labels: np.ndarray, classes: int) -> Facts:
    """Size, pixels, classes and unknown labels of a label map."""
    counts = np.bincount(labels.ravel(), minlength=256)
    background, foreground, ignored = int(counts[0]), int(counts[1:255].sum()), int(counts[255])
    facts = Facts(
        _size(*labels.shape),
        {"background": background, "foreground": foreground, "ignored": ignored},
        set(np.flatnonzero(counts[1 : classes + 1]).tolist()),
    )
    facts.oddities = _those({"unknown classes": bool(counts[classes + 1 : 255].any())})
    return facts


def _draw_cams(item: Item, image: np.ndarray, classes: Sequence[str], side: int) -> Panels:
    found = [("picture", sheets.panels(image, side=side)["picture"])]
    for cam, label in zip(item["cams"], item["labels"].tolist(), strict=True):
        panel = sheets.panels(image, cams=cam[None], side=side)["CAM"]
        found.append((f"{_class_name(label, classes)}, up to {np.nan_to_num(cam).max(initial=0):.2f}", panel))
    return found


def _draw_maps(item: Item, image: np.ndarray, classes: Sequence[str], side: int) -> Panels:
    given = {
        "seeds": item.get("seeds"),
        "pseudo_label": item.get("semantic"),
        "instances": item.get("instances"),
    }
    return list(sheets.panels(image, **given, side=side).items())


def _draw_fields(item: Item, image: np.ndarray, classes: Sequence[str], side: int) -> Panels:
    drawn = sheets.panels(image, boundary=item["boundary"], displacement=item["displacement"], side=side)
    reach = overlays.reach(np.nan_to_num(item["displacement"]))
    drawn[f"displacement, rim of the wheel {reach:.1f} cells"] = drawn.pop("displacement")
    return list(drawn.items())


def _draw_predictions(item: Item, image: np.ndarray, classes: Sequence[str], side: int) -> Panels:
    drawn = exclusive_record(item)
    found = {"prediction": drawn["semantic"], "predicted_instances": drawn["instances"]}
    return list(sheets.panels(image, **found, side=side).items())


def _draw_segments(item: Item, image: np.ndarray, classes: Sequence[str], side: int) -> Panels:
    drawn = sheets.panels(image, instances=item["segments"], side=side)
    drawn[f"{len(item['stability'])} segments"] = drawn.pop("instances")
    return list(drawn.items())


CLASSLESS = frozenset({"fields", "segments"})
FACTS: Mapping[str, Callable[[Item, int], Facts]] = {
    "segments": _segments,
    "cams": _cams,
    "seeds": _seeds,
    "fields": _fields,
    "labels": _labels,
    "predictions": _predictions,
}
PANELS: Mapping[str, Callable[[Item, np.ndarray, Sequence[str], int], Panels]] = {
    "segments": _draw_segments,
    "cams": _draw_cams,
    "seeds": _draw_maps,
    "fields": _draw_fields,
    "labels": _draw_maps,
    "predictions": _draw_predictions,
}


def _class_lines(found: Counter[int], classes: Sequence[str]) -> list[str]:
    there = [f"{name} {found[c]}" for c, name in enumerate(classes) if found[c]]
    never = [name for c, name in enumerate(classes) if not found[c]]
    lines = [f"pictures by class: {', '.join(there) or 'none'}"]
    return [*lines, f"classes in no picture: {', '.join(never)}"] if never else lines


def _class_name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if label < len(classes) else f"unknown class {label}"


def _size(height: int, width: int, of: str = "") -> dict[str, np.ndarray]:
    return {f"{of}height": np.array(height), f"{of}width": np.array(width)}


def _those(oddities: Mapping[str, bool]) -> list[str]:
    return [text for text, is_so in oddities.items() if is_so]


def _known(table: Mapping[str, Entry], format_: str) -> Entry:
    if format_ not in table:
        raise ValueError(f"nothing is known about the format {format_!r}; known are {', '.join(table)}")
    return table[format_]


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
