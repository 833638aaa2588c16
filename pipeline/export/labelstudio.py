"""Label Studio: a JSON of tasks with masks as predictions to correct, and the JSON that it exports,
with the corrected ones as annotations.

A brush mask holds the RGBA values of the image, all four 0 or 255, packed as by the package
rle-pack: how many values (32 bits), bits of a value - 1 (5), bits of each of four lengths,
less 1 (4 x 4); then runs: whether it repeats one value (1), which of the lengths it has (2), how
many values, less 1, and the value or values.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote
from xml.sax.saxutils import quoteattr

import numpy as np

from pipeline.core.resume import write_atomically
from pipeline.data.images import DatasetError, error
from pipeline.export.images import ExportImages, Target
from pipeline.readers import outlines
from pipeline.readers.outlines import MaskRenderer, Outline, whole
from pipeline.readers.tables import read_json

FILE, CONFIG = "tasks.json", "labels.xml"
SERVED = "/data/local-files/?d="
"""Where Label Studio serves files of its host."""
UPLOADED = re.compile(r"/upload/\d+/[0-9a-f]{8}-")
LENGTHS = (4, 8, 12, 16)
"""Bits of the lengths of runs that are written."""
SHAPES = {"brushlabels": "rle", "polygonlabels": "points"}
"""Types of regions that are masks, and the key of their shape."""
DO_EXPORT = "draw brush masks or polygons, and export JSON"


def export(images: ExportImages, target: Target) -> None:
    """Write tasks.json, the labeling interface as labels.xml, and image files to images/.

    Tasks name the files below the folder that holds the target's.
    """
    tasks = list[dict[str, Any]]()
    for image in images:
        path = f"images/{image.name}{target.files[image.name].suffix}"
        target.place(image.name, path)
        rows = zip(image.masks, image.classes, image.scores, strict=True)
        result = [
            _region(str(k), mask, target.classes[c], score)
            for k, (mask, c, score) in enumerate(rows, start=1)
        ]
        data = {"image": SERVED + quote(f"{target.folder.resolve().name}/{path}")}
        tasks.append({"data": data, "predictions": [{"model_version": "labels", "result": result}]})
    labels = "".join(f"<Label value={quoteattr(name)}/>" for name in target.classes)
    view = f'<BrushLabels name="labels" toName="image">{labels}</BrushLabels>'
    view = f'<View><Image name="image" value="$image" zoom="true"/>{view}</View>\n'
    write_atomically(target.folder / CONFIG, view.encode())
    write_atomically(target.folder / FILE, (json.dumps(tasks, ensure_ascii=False) + "\n").encode())


def _region(number: str, mask: np.ndarray, name: str, score: float) -> dict[str, Any]:
    return {
        "id": number,
        "type": "brushlabels",
        "from_name": "labels",
        "to_name": "image",
        "original_width": mask.shape[1],
        "original_height": mask.shape[0],
        "image_rotation": 0,
        "score": round(float(score), 6),
        "value": {"format": "rle", "rle": pack(mask), "brushlabels": [name]},
    }


def read(path: Path) -> Iterator[tuple[str, MaskRenderer]]:
    """Yield the image file and the masks of each task that was annotated: of its last annotation.

    Raises DatasetError if the file is none of Label Studio's, or holds other shapes.
    """
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DatasetError(error(path, "is not a list of tasks", DO_EXPORT))
    for number, task in enumerate(tasks):
        where = f"{path}, task {task.get('id', number)!r}"
        try:
            annotations = task.get("annotations") or []
            rows = [one["result"] for one in annotations if not one.get("was_cancelled")]
            if rows:
                found = [row for row in rows[-1] if str(row.get("type")).endswith("labels")]
                sizes = [_size(row) for row in found]
                drawn = tuple(_outline(row, size) for row, size in zip(found, sizes, strict=True))
                name = UPLOADED.sub("/", unquote(task["data"]["image"].rpartition("?d=")[2]))
                yield name, MaskRenderer(sizes[0] if sizes else None, drawn, rasterize)
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as problem:
            raise DatasetError(error(where, f"cannot be used ({problem!r})", DO_EXPORT)) from None


def _size(row: Mapping[str, Any]) -> tuple[int, int]:
    height, width = (whole(row[f"original_{side}"]) for side in ("height", "width"))
    if not height or not width:
        raise ValueError("a region without the size of its image")
    return height, width


def _outline(row: Mapping[str, Any], size: tuple[int, int]) -> Outline:
    kind = row["type"]
    if kind not in SHAPES:
        raise ValueError(f"a region of type {kind}")
    shape = row["value"][SHAPES[kind]]
    if kind == "polygonlabels":  # in percent
        shape = [(np.asarray(shape, np.float64) / 100 * size[::-1]).ravel().tolist()]
    return Outline(str(row["value"][kind][0]), shape, crowd=False)


def rasterize(shape: Any, size: tuple[int, int]) -> np.ndarray:
    """Return the mask bool [H,W] of a brush's bytes or of a polygon in pixels, or ValueError."""
    if isinstance(shape, list) and shape and isinstance(shape[0], list):
        return outlines.rasterize(shape, size)
    return unpack(shape, size)


def pack(mask: np.ndarray) -> list[int]:
    """Return the bytes of a brush mask bool [H,W]."""
    values = np.repeat(np.asarray(mask, bool).ravel(), 4)
    ends = np.append(np.flatnonzero(np.diff(values)) + 1, values.size)
    bits = [f"{values.size:032b}{7:05b}", *(f"{length - 1:04b}" for length in LENGTHS)]
    longest, start = 1 << LENGTHS[-1], 0
    for end in ends.tolist():
        while start < end:
            count = min(end - start, longest)
            k = next(k for k, length in enumerate(LENGTHS) if count <= 1 << length)
            bits.append(f"1{k:02b}{count - 1:0{LENGTHS[k]}b}{255 * values[start]:08b}")
            start += count
    text = np.frombuffer("".join(bits).encode(), np.uint8)
    return np.packbits(text - ord("0")).tolist()


def unpack(code: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Return the brush mask bool [H,W] of its bytes; raise ValueError if they are no such mask."""
    try:
        bits, place = "".join(f"{byte:08b}" for byte in bytearray(iter(code))), 0
    except TypeError:
        raise ValueError("the brush mask is not a list of bytes") from None

    def take(count: int) -> int:
        """Read the next `count` bits as a number."""
        nonlocal place
        place += count
        if place > len(bits):
            raise ValueError("the brush mask is cut off")
        return int(bits[place - count : place], 2)

    total, width = take(32), take(5) + 1
    lengths = [take(4) + 1 for _ in range(4)]
    if total != 4 * size[0] * size[1] or width != 8:
        raise ValueError(f"the brush mask is not of {size[1]} x {size[0]} pixels")
    values, start = np.zeros(total, np.uint8), 0
    while start < total:
        repeated = take(1)
        end = start + take(lengths[take(2)]) + 1
        if end > total:
            raise ValueError("the brush mask has too many values")
        values[start:end] = take(8) if repeated else [take(8) for _ in range(end - start)]
        start = end
    return values.reshape(*size, 4)[..., 3] > 127
