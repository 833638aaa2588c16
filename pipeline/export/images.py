"""What every format is written from: images with their masks, whatever artifact they lie in, and
the names of their files.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from pipeline.core.artifacts import Record
from pipeline.errors import UserError
from pipeline.instances.base import masks_of
from pipeline.readers.source import complain_of_id


class ExportError(UserError):
    """Something cannot be exported; the message names the file, image, class or option and what to
    do.
    """


@dataclass(frozen=True, slots=True)
class ExportImage:
    """One image to export.

    size: (height, width) in pixels; semantic: label map uint8 [H,W] or None; masks: bool [N,H,W],
    none empty, may overlap; classes: 0-based, uint8 [N]; scores: float32 [N].
    """

    name: str
    size: tuple[int, int]
    semantic: np.ndarray | None
    masks: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, slots=True)
class Target:
    """Where an export goes, and what it says of its images beside their masks.

    files: image name -> image file; splits: image name -> split; images: whether the image files
    come along.
    """

    folder: Path
    classes: Sequence[str]
    files: Mapping[str, Path]
    splits: Mapping[str, str]
    images: Literal["none", "copy", "link"] = "none"


@dataclass(slots=True)
class Summary:
    """What was written: numbers of images and instances, and what the format could not hold."""

    images: int = 0
    instances: int = 0
    lost: list[str] = field(default_factory=list)


class ExportImages:
    """The images `names` of an artifact (name -> record of layout `labels` or `predictions`), read
    one at a time.

    Instances of a score below `min_score`, or without any pixel, are left out and counted in
    `left_out`. Raises ExportError on iteration for a record that contradicts itself or the number
    of classes.
    """

    def __init__(
        self,
        records: Mapping[str, Record],
        names: Sequence[str],
        classes: int,
        min_score: float = 0.0,
    ) -> None:
        self.records, self.names, self.classes, self.min_score = records, names, classes, min_score
        self.left_out = 0

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[ExportImage]:
        for name in tqdm(self.names, desc="export", unit="image", mininterval=1):
            image = as_image(name, self.records[name], self.classes)
            kept = (image.scores >= self.min_score) & image.masks.any((1, 2))
            self.left_out += int((~kept).sum())
            yield image if kept.all() else _select(image, kept)


def _select(image: ExportImage, kept: np.ndarray) -> ExportImage:
    masks, classes, scores = (values[kept] for values in (image.masks, image.classes, image.scores))
    return ExportImage(image.name, image.size, image.semantic, masks, classes, scores)


def as_image(name: str, record: Record, classes: int) -> ExportImage:
    """A record of layout `labels` (exclusive ids) or `predictions` (masks as bits), of `classes`
    classes; raises ExportError.
    """
    if missing := {"semantic", "instances", "classes", "scores"} - record.keys():
        raise ExportError(
            f"{name!r} comes without {', '.join(sorted(missing))}; make the artifact again, or export labels"
        )
    semantic = record["semantic"]
    size = (int(semantic.shape[0]), int(semantic.shape[1]))
    masks = masks_of(record)
    lengths = {len(masks), len(record["classes"]), len(record["scores"])}
    if masks.shape[1:] != size or len(lengths) > 1:
        raise ExportError(
            f"{name!r}: masks {masks.shape}, {len(record['classes'])} classes and {len(record['scores'])} scores "
            f"do not fit each other and size {size}; make the artifact again"
        )
    if record["classes"].max(initial=0) >= max(classes, 1):
        raise ExportError(
            f"{name!r} has class {record['classes'].max()} of {classes}; make the artifact again"
        )
    return ExportImage(name, size, semantic, masks, record["classes"], record["scores"])


def check_names(names: Sequence[str]) -> None:
    """Raise ExportError for a name that is no relative path of letters, digits and signs, and so
    may leave the folder.
    """
    for name in names:
        if wrong := complain_of_id(name):
            raise ExportError(f"{name!r} {wrong}; rename the image")


def flatten(names: Sequence[str]) -> dict[str, str]:
    """Name -> file name in one folder, `/` written as `_`; raises ExportError that names two which
    would become one.
    """
    flat: dict[str, str] = {}
    for name in names:
        file = name.replace("/", "_")
        if file in flat:
            raise ExportError(
                f"{flat[file]!r} and {name!r} would both be {file!r}; rename one of them"
            )
        flat[file] = name
    return {name: file for file, name in flat.items()}
