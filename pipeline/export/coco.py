"""COCO: one json of instances, overlaps and scores included; the semantic map is not part of the format.

Lin et al., Microsoft COCO: Common Objects in Context, 2014. Run lengths are exact for every reader. Polygons are exact for readers that
fill them as the COCO API does; those that fill with OpenCV see each part a pixel larger to the right and below.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from pipeline.export.files import place, stream
from pipeline.export.pictures import Picture, Pictures, Summary, Target, check_names
from pipeline.export.polygons import edge_polygons


def export(
    pictures: Pictures, target: Target, *, file: str = "instances_default.json", polygons: bool = False
) -> Summary:
    """Write annotations/<file>, and picture files to images/; memory does not grow with the number of pictures.

    Rows of pictures go into the json as they come, rows of instances wait in a file without a name until the pictures are through.
    Ids of pictures and instances count from 1, those of categories are class + 1. Raises ExportError for names that leave the folder.
    """
    check_names(pictures.names)
    summary = Summary()
    with (
        stream(target.folder / "annotations" / file) as out,
        tempfile.TemporaryFile(dir=target.folder) as later,
    ):
        out.write(_head(target))
        for picture in pictures:
            source = target.files[picture.name]
            name = f"{picture.name}{source.suffix}"
            place(source, target.folder / "images" / name, target.images)
            height, width = picture.size
            summary.pictures += 1
            row = {"id": summary.pictures, "file_name": name, "height": height, "width": width}
            _append(out, row, first=summary.pictures == 1)
            for number, mask in enumerate(picture.masks):
                summary.instances += 1
                ids = {"id": summary.instances, "image_id": summary.pictures}
                row = {**ids, **annotation(picture, number, mask, polygons=polygons)}
                _append(later, row, first=summary.instances == 1)
        out.write(b'\n],\n"annotations": [\n')
        later.seek(0)
        shutil.copyfileobj(later, out)
        out.write(b"\n]\n}\n")
    return summary


def annotation(picture: Picture, number: int, mask: np.ndarray, *, polygons: bool) -> dict[str, Any]:
    """What COCO says of instance `number` with the mask bool [H,W], without the ids: box (x, y, width, height) and area in pixels."""
    from faster_coco_eval.core import mask as coder

    code = coder.encode(np.asfortranarray(mask, np.uint8))
    outlines = [polygon.ravel().tolist() for polygon in edge_polygons(mask)] if polygons else None
    return {
        "category_id": int(picture.classes[number]) + 1,
        "segmentation": outlines or {"size": list(picture.size), "counts": _text(code["counts"])},
        "area": int(coder.area(code)),
        "bbox": [int(value) for value in coder.toBbox(code)],
        "iscrowd": 0,
        "score": round(float(picture.scores[number]), 6),
    }


def _head(target: Target) -> bytes:
    """The json up to the first picture."""
    categories = [{"id": c + 1, "name": name, "supercategory": ""} for c, name in enumerate(target.classes)]
    head = {"info": {"description": "weakmask"}, "licenses": [], "categories": categories}
    lines = [f'"{key}": {json.dumps(value, ensure_ascii=False)},\n' for key, value in head.items()]
    return ("{\n" + "".join(lines) + '"images": [\n').encode()


def _append(file: BinaryIO, row: Mapping[str, Any], *, first: bool) -> None:
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    file.write(("" if first else ",\n").encode() + text.encode())


def _text(counts: bytes | str) -> str:
    return counts if isinstance(counts, str) else counts.decode("ascii")
