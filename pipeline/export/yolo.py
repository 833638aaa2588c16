"""YOLO segmentation: one line per instance, `class x y x y ...` with coordinates as shares of the
image's size.

The layout and its rules are Ultralytics': label files beside the folder `images`, lists of
`./images/...`, data.yaml. Lost: scores, semantic maps, and, where an instance has several parts,
either the gaps (`join`: a line one pixel wide runs between nearest parts, as in Ultralytics' own
converter) or their unity (`split`: each part is an instance). All else is exact for readers that
fill with OpenCV at the image's own size, whether they round the corners or cut their fractions off:
corners lie a quarter of a pixel inside theirs.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import yaml

from pipeline.export.files import place, write
from pipeline.export.images import ExportImage, ExportImages, Summary, Target, check_names, flatten
from pipeline.export.polygons import join, pixel_polygons

INSIDE = 0.25
DIGITS = 6


def export(
    samples: ExportImages, target: Target, *, parts: Literal["join", "split"] = "join"
) -> Summary:
    """Write labels/*.txt, <split>.txt and data.yaml, the last two at the end; a sample without
    instances gets an empty file.

    Readers look into one folder: a `/` in a name becomes `_`. Raises ExportError if two names would
    become one.
    """
    check_names(samples.names)
    names = flatten(samples.names)
    summary, lists, divided = Summary(), defaultdict[str, list[str]](list), 0
    for sample in samples:
        polygons = [pixel_polygons(mask) for mask in sample.masks]
        divided += sum(len(own) > 1 for own in polygons)
        if parts == "join":
            polygons = [[join(own)] for own in polygons]
        lines = [
            _line(sample, c, polygon)
            for c, own in zip(sample.classes, polygons, strict=True)
            for polygon in own
        ]
        write(target.folder / "labels" / f"{names[sample.name]}.txt", "".join(lines).encode())
        source = target.files[sample.name]
        image = f"images/{names[sample.name]}{source.suffix}"
        place(source, target.folder / image, target.images)
        lists[target.splits[sample.name]].append(f"./{image}\n")
        summary.images += 1
        summary.instances += len(sample.masks)
    for split, paths in lists.items():
        write(target.folder / f"{split}.txt", "".join(paths).encode())
    write(target.folder / "data.yaml", _data(target, lists).encode())
    if divided:
        how = {"join": "joined by lines", "split": "written as several"}[parts]
        summary.lost.append(f"instances in several parts, {how}: {divided}")
    return summary


def _line(image: ExportImage, c: int, polygon: np.ndarray) -> str:
    shares = (polygon + INSIDE) / (image.size[1], image.size[0])
    return f"{c} {' '.join(f'{share:.{DIGITS}f}' for share in shares.ravel())}\n"


def _data(target: Target, lists: Mapping[str, Any]) -> str:
    """data.yaml: lists relative to its folder, also those of an earlier export into it, and class
    names by number.
    """
    splits = dict.fromkeys(["train", "val", *lists])
    files = {
        split: f"{split}.txt" if (target.folder / f"{split}.txt").is_file() else None
        for split in splits
    }
    content = {**files, "names": dict(enumerate(target.classes))}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
