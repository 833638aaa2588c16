"""YOLO segmentation: one line per instance, `class x y x y ...`, relative to the image's size.

The layout is Ultralytics': folders `labels` and `images`, lists of `./images/...`, data.yaml. The
format loses scores and semantic maps. An instance of several parts is joined by lines one pixel
wide between nearest parts, as in Ultralytics' converter, or split into several instances. Readers
that fill with OpenCV at the image's own size get the outer contours exactly, whether they round or
truncate coordinates: points lie a quarter of a pixel inside theirs.
"""

from collections import defaultdict
from typing import Literal

import numpy as np
import yaml

from pipeline.core.resume import write_atomically
from pipeline.export.images import ExportImages, Summary, Target, flatten
from pipeline.export.polygons import join, trace

INSIDE = 0.25
DIGITS = 6


def export(
    images: ExportImages, target: Target, *, parts: Literal["join", "split"] = "join"
) -> Summary:
    """Write labels/*.txt (empty without instances), and at the end <split>.txt and data.yaml.

    The folders are flat: `/` in a name becomes `_`. Raises UserError if names then collide.
    """
    names = flatten(images.names)
    summary, lists, divided = Summary(), defaultdict[str, list[str]](list), 0
    for image in images:
        polygons = [trace(mask) for mask in image.masks]
        divided += sum(len(own) > 1 for own in polygons)
        if parts == "join":
            polygons = [[join(own)] for own in polygons]
        lines = [
            format_line(image.size, int(c), polygon)
            for c, own in zip(image.classes, polygons, strict=True)
            for polygon in own
        ]
        path = target.folder / f"labels/{names[image.name]}.txt"
        write_atomically(path, "".join(lines).encode())
        file = f"images/{names[image.name]}{target.files[image.name].suffix}"
        target.place(image.name, file)
        lists[target.splits[image.name]].append(f"./{file}\n")
        summary.instances += len(image.masks)
    for split, paths in lists.items():
        write_atomically(target.folder / f"{split}.txt", "".join(paths).encode())
    splits = [split for split in dict.fromkeys(["train", "val", *lists]) if _list(target, split)]
    content = {split: f"{split}.txt" for split in splits} | {
        "names": dict(enumerate(target.classes))
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_atomically(target.folder / "data.yaml", text.encode())
    if divided:
        how = {"join": "joined by lines", "split": "written as several"}[parts]
        summary.lost.append(f"instances in several parts, {how}: {divided}")
    for split in {"train", "val"}.difference(splits):
        summary.lost.append(f"data.yaml has no {split}, without which Ultralytics does not train")
    return summary


def format_line(size: tuple[int, int], c: int, polygon: np.ndarray) -> str:
    """Return the line of a polygon int [n,2] of class `c` in an image of `size` (H, W)."""
    relative = (polygon + INSIDE) / (size[1], size[0])
    return f"{c} {' '.join(f'{value:.{DIGITS}f}' for value in relative.ravel())}\n"


def _list(target: Target, split: str) -> bool:
    """Return whether the folder has the list of a split, also from an earlier export."""
    return (target.folder / f"{split}.txt").is_file()
