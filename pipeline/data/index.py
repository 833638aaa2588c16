"""The index of a dataset: size, split, tags, masks and digest of every image, as JSON and CSV."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.resume import write_atomically
from pipeline.data.images import DatasetError, error, read_image

FORMAT, VERSION = "weakmask dataset", 2
HEADER, TABLE = "index.json", "images.csv"
COLUMNS = ("id", "path", "height", "width", "split", "tags", "semantic", "instances", "digest")
RERUN = "recreate it with `dvc repro dataset`"


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image of a dataset.

    path, semantic, instances: image and PNG masks (or None), POSIX, relative to the index's roots.
    height, width: in pixels, upright. split: "train", "val" or another name. tags: sorted 0-based
    ids of the classes in the image; unknown: of those that may be in it. digest: hex blake2b (16
    bytes) of the image file and its mask files, so that a changed image or a new mask is noticed.
    """

    id: str
    path: str
    height: int
    width: int
    split: str
    tags: tuple[int, ...]
    semantic: str | None
    instances: str | None
    digest: str
    unknown: tuple[int, ...] = ()


class Index(Mapping[str, ImageEntry]):
    """All images by id, in sorted order; picklable, for worker processes.

    mask_values: value in a semantic mask file -> label: 0 background, c + 1 class c, 255 ignore.
    """

    def __init__(
        self,
        classes: Sequence[str],
        images: Iterable[ImageEntry],
        images_root: Path,
        masks_root: Path,
        mask_values: Mapping[int, int],
    ) -> None:
        self.classes = tuple(classes)
        self.images_root, self.masks_root = Path(images_root), Path(masks_root)
        self.mask_values = dict(sorted(mask_values.items()))
        self._images = {image.id: image for image in sorted(images, key=lambda image: image.id)}

    def __getitem__(self, name: str) -> ImageEntry:
        return self._images[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)

    def select(self, split: str | None) -> list[str]:
        """Return the sorted ids of a split, or of all images for None.

        Raises DatasetError that lists the splits if there is no such split.
        """
        if split is None:
            return list(self)
        names = [image.id for image in self.values() if image.split == split]
        if not names:
            splits = ", ".join(sorted({image.split for image in self.values()})) or "none"
            what = f"has no image in split {split!r}"
            raise DatasetError(error("dataset", what, f"its splits are {splits}"))
        return names

    def image(self, name: str) -> np.ndarray:
        """Return the upright image, uint8 RGB [H,W,3]; raise DatasetError naming the file."""
        return read_image(self.images_root / self[name].path)

    def size(self, name: str) -> tuple[int, int]:
        """Return (height, width) of the image in pixels."""
        return self[name].height, self[name].width

    def target(self, name: str) -> np.ndarray:
        """Return the tags of the image, f4 [C]: 1 present, 0 absent, -1 unknown."""
        vector = np.zeros(len(self.classes), np.float32)
        vector[list(self[name].tags)] = 1
        vector[list(self[name].unknown)] = -1
        return vector

    def tags(self, name: str) -> list[str]:
        """Return the tags of the image as in labels.csv: class names, `?` before unknown ones."""
        image = self[name]
        unknown = [f"?{self.classes[label]}" for label in image.unknown]
        return [self.classes[label] for label in image.tags] + unknown

    def has_masks(self, name: str) -> bool:
        """Return whether the image has a semantic mask."""
        return self[name].semantic is not None

    def has_instances(self, name: str) -> bool:
        """Return whether the image has an instance mask."""
        return self[name].instances is not None

    @property
    def digest(self) -> str:
        """Hex blake2b (16 bytes) of classes, mask values and rows, wherever the files lie."""
        content = (
            json.dumps([VERSION, self.classes, list(self.mask_values.items())]) + self._table()
        )
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def save(self, folder: Path) -> None:
        """Write index.json and images.csv into the folder: equal content gives equal bytes."""
        header = {
            "format": FORMAT,
            "version": VERSION,
            "classes": self.classes,
            "images": _relative(self.images_root, folder),
            "masks": _relative(self.masks_root, folder),
            "mask_values": {str(value): label for value, label in self.mask_values.items()},
            "digest": self.digest,
        }
        write_atomically(folder / TABLE, self._table().encode())
        # The header comes last: a folder without it counts as unfinished.
        write_atomically(
            folder / HEADER, (json.dumps(header, indent=1, ensure_ascii=False) + "\n").encode()
        )

    @classmethod
    def load(cls, folder: Path) -> "Index":
        """Read what save wrote; raise DatasetError if it is missing, damaged or outdated."""
        header = _read_header(folder / HEADER)
        try:
            roots = [
                folder / header[key] if header[key].split("/")[0] == "." else Path(header[key])
                for key in ("images", "masks")
            ]
            values = {int(value): label for value, label in header["mask_values"].items()}
            images = _read_table(folder / TABLE)
            index = cls(header["classes"], images, roots[0], roots[1], values)
            intact = index.digest == header["digest"]
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            raise DatasetError(error(folder / HEADER, f"damaged ({problem!r})", RERUN)) from problem
        if not intact:
            what = f"does not match {HEADER}: one of the two was changed"
            raise DatasetError(error(folder / TABLE, what, RERUN))
        return index

    def _table(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for image in self.values():
            tags = " ".join([*map(str, image.tags), *(f"?{label}" for label in image.unknown)])
            row = {**asdict(image), "tags": tags}
            writer.writerow(row[column] for column in COLUMNS)  # None is written as ""
        return text.getvalue()


def _relative(root: Path, folder: Path) -> str:
    """Return a root for the header, `./...` if it lies in the folder, so that it can be moved."""
    if not root.is_relative_to(folder):
        return root.as_posix()
    return f"./{root.relative_to(folder).as_posix()}".removesuffix("/.")


def _read_header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(error(path, "no such file", RERUN)) from None
    except (OSError, ValueError, RecursionError) as problem:
        raise DatasetError(error(path, f"damaged ({problem})", RERUN)) from problem
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DatasetError(error(path, "is not the index of a dataset", RERUN))
    if header.get("version") != VERSION:
        what = f"is of version {header.get('version')}, this program reads {VERSION}"
        raise DatasetError(error(path, what, RERUN))
    return header


def _read_table(path: Path) -> list[ImageEntry]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            if tuple(next(rows, ())) != COLUMNS:
                what = f"the columns are not {', '.join(COLUMNS)}"
                raise DatasetError(error(path, what, RERUN))
            return [_parse_row(row) for row in rows]
    except FileNotFoundError:
        raise DatasetError(error(path, "no such file", RERUN)) from None
    except (OSError, ValueError, csv.Error) as problem:
        raise DatasetError(error(path, f"damaged ({problem})", RERUN)) from problem


def _parse_row(row: Sequence[str]) -> ImageEntry:
    """Parse a row; raise ValueError for what is no number and paths that leave the roots."""
    name, path, height, width, split, tags, semantic, instances, digest = row
    words = tags.split()
    labels = tuple(int(word) for word in words if word[0] != "?")
    unknown = tuple(int(word[1:]) for word in words if word[0] == "?")
    for file in (path, semantic, instances):
        if file.startswith("/") or ".." in file.split("/"):
            raise ValueError(f"image {name!r} has the path {file!r}, which leaves the folder")
    masks = semantic or None, instances or None
    size = int(height), int(width)
    return ImageEntry(name, path, *size, split, labels, *masks, digest, unknown)
