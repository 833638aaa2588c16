"""COCO: one JSON of instances with overlaps and scores; the format has no semantic maps.

Lin et al., Microsoft COCO: Common Objects in Context, 2014. Run lengths (RLE), the default, are
exact for every reader; polygons are so for nearly every pixel (see pipeline.export.polygons).
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.core.resume import replacing
from pipeline.export.images import ExportImages, Summary, Target
from pipeline.export.polygons import edge_polygons


def export(
    images: ExportImages,
    target: Target,
    *,
    file: str = "instances_default.json",
    polygons: bool = False,
) -> Summary:
    """Write annotations/<file>, and image files to images/, in constant memory.

    polygons: write polygons instead of RLE.
    """
    with document(target.folder / "annotations" / file, target.classes) as content:
        for image in images:
            name = f"{image.name}{target.files[image.name].suffix}"
            target.place(image.name, f"images/{name}")
            rows = (
                annotation(mask, c, score, polygons=polygons)
                for mask, c, score in zip(image.masks, image.classes, image.scores, strict=True)
            )
            content.add(name, image.size, rows)
    return Summary(content.instances)


class Document:
    """A JSON in progress: rows of images are written at once, rows of instances to a second file.

    Ids of images and instances count from 1; category ids are class + 1.
    """

    def __init__(self, out: BinaryIO, later: BinaryIO) -> None:
        self._out, self._later = out, later
        self.images = self.instances = 0

    def add(
        self, file_name: str, size: tuple[int, int], annotations: Iterable[Mapping[str, Any]]
    ) -> None:
        """Append an image of `size` (H, W) and its instances (see annotation)."""
        self.images += 1
        row = {"id": self.images, "file_name": file_name, "height": size[0], "width": size[1]}
        _append(self._out, row, first=self.images == 1)
        for content in annotations:
            self.instances += 1
            ids = {"id": self.instances, "image_id": self.images}
            _append(self._later, {**ids, **content}, first=self.instances == 1)


@contextmanager
def document(path: Path, classes: Sequence[str]) -> Iterator[Document]:
    """Create a JSON to add images to; it gets its name if the block ends without an error."""
    categories = [
        {"id": c + 1, "name": name, "supercategory": ""} for c, name in enumerate(classes)
    ]
    head = {"info": {"description": "weakmask"}, "licenses": [], "categories": categories}
    lines = [f'"{key}": {json.dumps(value, ensure_ascii=False)},\n' for key, value in head.items()]
    with replacing(path) as out, tempfile.TemporaryFile(dir=path.parent) as later:
        out.write(("{\n" + "".join(lines) + '"images": [\n').encode())
        yield Document(out, later)
        out.write(b'\n],\n"annotations": [\n')
        later.seek(0)
        shutil.copyfileobj(later, out)
        out.write(b"\n]\n}\n")


def annotation(mask: np.ndarray, c: int, score: float, *, polygons: bool = False) -> dict[str, Any]:
    """Return COCO's row of an instance without the ids: box (x, y, w, h) and area in pixels.

    Args:
        mask: bool [H,W], not empty.
        c: its 0-based class.
        score: its score.
        polygons: whether to write polygons instead of RLE.
    """
    from faster_coco_eval.core import mask as coco_mask

    code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    outlines = [polygon.ravel().tolist() for polygon in edge_polygons(mask)] if polygons else None
    return {
        "category_id": int(c) + 1,
        "segmentation": outlines or {"size": list(mask.shape), "counts": code["counts"].decode()},
        "area": int(coco_mask.area(code)),
        "bbox": [int(value) for value in coco_mask.toBbox(code)],
        "iscrowd": 0,
        "score": round(float(score), 6),
    }


def _append(file: BinaryIO, row: Mapping[str, Any], *, first: bool) -> None:
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    file.write(("" if first else ",\n").encode() + text.encode())
