"""What one image of an artifact adds to its description, and what is odd about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

Item = Mapping[str, np.ndarray]


@dataclass(slots=True)
class Facts:
    """What one image adds: values by name, pixels by kind, classes that occur, and oddities."""

    values: dict[str, np.ndarray]
    pixels: dict[str, int] = field(default_factory=dict)
    classes: set[int] = field(default_factory=set)
    oddities: list[str] = field(default_factory=list)


def _cams(item: Item, classes: int) -> Facts:
    cams, labels = item["cams"], item["labels"]
    H, W = (int(n) for n in item["size"])
    facts = Facts(
        {**_size(H, W), "maps": np.array(len(cams)), "values": cams}, {}, set(labels.tolist())
    )
    peaks = (
        np.nan_to_num(cams.reshape(len(cams), -1)).max(1, initial=0) if len(cams) else np.zeros(0)
    )
    facts.oddities = _those(
        {
            "no class map": not len(cams),
            "a class map that is zero everywhere": bool((peaks == 0).any()),
            "NaN or infinity": not np.isfinite(cams).all(),
            "values outside [0, 1]": bool((cams < 0).any() or (cams > 1).any()),
            "as many labels as maps are not there": len(labels) != len(cams),
            "unknown classes": bool((labels >= classes).any()),
            "a map that is not on the stride-4 grid": cams.shape[1:]
            != ((H - 1) // 4 + 1, (W - 1) // 4 + 1),
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
            "NaN or infinity": not (
                np.isfinite(boundary).all() and np.isfinite(displacement).all()
            ),
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


def _size(height: int, width: int, of: str = "") -> dict[str, np.ndarray]:
    return {f"{of}height": np.array(height), f"{of}width": np.array(width)}


def _those(oddities: Mapping[str, bool]) -> list[str]:
    return [text for text, is_so in oddities.items() if is_so]


CLASSLESS = frozenset({"fields", "segments"})
FACTS: Mapping[str, Callable[[Item, int], Facts]] = {
    "segments": _segments,
    "cams": _cams,
    "seeds": _seeds,
    "fields": _fields,
    "labels": _labels,
    "predictions": _predictions,
}
