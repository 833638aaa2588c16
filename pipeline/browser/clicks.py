"""Points and boxes that a person clicks on images, kept as hints in the folder of the source.

A mark is [label, x, y] or [label, x0, y0, x1, y1] in pixels; label 0 is background, c + 1 class c.
Points are rows of clicked.csv, boxes annotations of clicked.json (COCO).
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from pipeline.core.resume import write_atomically
from pipeline.data.index import Index
from pipeline.errors import UserError

Mark = Sequence[float]
SPLIT = "train"
"""Hints are used on images of this split alone."""


class Clicks:
    """The marks in the folder of hints of a source."""

    def __init__(self, folder: Path) -> None:
        self.points, self.boxes = folder / "clicked.csv", folder / "clicked.json"
        self._lock = Lock()

    def of(self, name: str, index: Index) -> list[Mark]:
        """Return the marks of an image; raise UserError for a file that is not as `save` writes."""
        return self._read(index).get(name, [])

    def save(self, name: str, marks: Sequence[Mark], index: Index) -> None:
        """Write the marks of an image in the place of its earlier ones; raises UserError."""
        if name not in index or index[name].split != SPLIT:
            raise UserError(f"{name}: no image of split {SPLIT}, where alone hints are used")
        height, width = index.size(name)
        for mark in marks:
            label, x, y = mark[0], mark[1::2], mark[2::2]
            point = len(mark) == 3 and 0 <= x[0] < width and 0 <= y[0] < height
            box = len(mark) == 5 and 0 <= x[0] < x[1] <= width and 0 <= y[0] < y[1] <= height
            if label not in range(box, len(index.classes) + 1) or not (point or box):
                raise UserError(f"{name}: {mark} is no point or box of a class in the image")
        with self._lock:
            self._write({**self._read(index), name: list(marks)}, index)

    def _read(self, index: Index) -> dict[str, list[Mark]]:
        marks, labels = dict[str, list[Mark]](), _labels(index)
        try:
            if self.points.is_file():
                text = self.points.read_text(encoding="utf-8")
                for row in csv.DictReader(io.StringIO(text, newline="")):
                    point = [labels[row["class"]], float(row["x"]), float(row["y"])]
                    marks.setdefault(row["image"], []).append(point)
            if self.boxes.is_file():
                content = json.loads(self.boxes.read_text(encoding="utf-8"))
                files = {row["id"]: row["file_name"] for row in content["images"]}
                names = {row["id"]: row["name"] for row in content["categories"]}
                for row in content["annotations"]:
                    x, y, w, h = row["bbox"]
                    box = [labels[names[row["category_id"]]], x, y, x + w, y + h]
                    marks.setdefault(files[row["image_id"]], []).append(box)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.points} or {self.boxes.name}: not as the browser writes it ({error!r}); "
                "name the file otherwise to keep it as hints of yours"
            ) from error
        return marks

    def _write(self, marks: Mapping[str, Sequence[Mark]], index: Index) -> None:
        names = {label: name for name, label in _labels(index).items()}
        table, images, annotations = io.StringIO(), list[Any](), list[Any]()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("image", "class", "x", "y"))
        for name, own in sorted(marks.items()):
            writer.writerows((name, names[int(m[0])], *m[1:]) for m in own if len(m) == 3)
            boxes = [mark for mark in own if len(mark) == 5]
            if boxes:
                images.append({"id": len(images) + 1, "file_name": name})
            for label, x0, y0, x1, y1 in boxes:
                box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
                place = {"image_id": len(images), "category_id": int(label), "iscrowd": 0}
                annotations.append({"id": len(annotations) + 1, **place, **box})
        categories = [{"id": label, "name": name} for label, name in names.items()]
        content = {"images": images, "annotations": annotations, "categories": categories}
        texts = {
            self.points: table.getvalue() if table.getvalue().count("\n") > 1 else "",
            self.boxes: json.dumps(content, ensure_ascii=False) + "\n" if annotations else "",
        }
        for path, text in texts.items():
            write_atomically(path, text.encode()) if text else path.unlink(missing_ok=True)


def _labels(index: Index) -> dict[str, int]:
    return {name: label for label, name in enumerate(("background", *index.classes))}
