"""What every format is written from and to: images of an artifact, their names, and files.

Files are written atomically; existing ones are replaced only on request.
"""

import csv
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from pipeline.core.artifacts import Record
from pipeline.core.resume import write_atomically
from pipeline.data.images import encode_upright, is_rotated
from pipeline.data.instance_masks import masks_of
from pipeline.errors import UserError
from pipeline.readers.tables import COLUMNS, LABELS, read_labels


@dataclass(frozen=True, slots=True)
class ExportImage:
    """One image to export.

    size: (H, W) in pixels; semantic: label map uint8 [H,W]; masks: bool [N,H,W], not empty, may
    overlap; classes: 0-based, uint8 [N]; scores: float32 [N].
    """

    name: str
    size: tuple[int, int]
    semantic: np.ndarray
    masks: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, slots=True)
class Target:
    """Where an export goes, and the properties of its images other than their masks.

    files: image name -> image file; splits: image name -> split; images: whether to copy or link
    the image files; rotated: images whose file, as readers without regard to EXIF see it, does not
    fit the masks, which are upright. Copies are upright.
    """

    folder: Path
    classes: Sequence[str]
    files: Mapping[str, Path]
    splits: Mapping[str, str]
    images: Literal["none", "copy", "link"] = "none"
    rotated: list[str] = field(default_factory=list)

    def place(self, name: str, path: str) -> None:
        """Put the file of an image at `path` of the folder, if it is wanted there."""
        if is_rotated(self.files[name]):
            if self.images == "copy":
                write_atomically(self.folder / path, encode_upright(self.files[name]))
                return
            self.rotated.append(name)
        if self.images != "none":
            _place(self.files[name], self.folder / path, copy=self.images == "copy")


@dataclass(slots=True)
class Summary:
    """Number of instances written, and what the format could not represent."""

    instances: int = 0
    lost: list[str] = field(default_factory=list)


class ExportImages:
    """The images `names` of an artifact, read one at a time.

    records: name -> record of layout `labels` or `predictions`. Instances with a score below
    `min_score`, or without pixels, are counted in `left_out` instead. Iteration raises UserError
    for an unknown class.
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
            record = self.records[name]
            semantic, masks = record["semantic"], masks_of(record)
            classes, scores = record["classes"], record["scores"]
            size = (int(semantic.shape[0]), int(semantic.shape[1]))
            if classes.max(initial=0) >= max(self.classes, 1):
                raise UserError(
                    f"{name!r} has class {classes.max()} of {self.classes}; recreate the artifact "
                    "with `dvc repro`"
                )
            kept = (scores >= self.min_score) & masks.any((1, 2))
            self.left_out += int((~kept).sum())
            yield ExportImage(name, size, semantic, masks[kept], classes[kept], scores[kept])


def flatten(names: Sequence[str]) -> dict[str, str]:
    """Return name -> file name with `_` for `/`; raise UserError if two become the same."""
    flat: dict[str, str] = {}
    for name in names:
        file = name.replace("/", "_")
        if file in flat:
            raise UserError(
                f"{flat[file]!r} and {name!r} would both be {file!r}; rename one of them"
            )
        flat[file] = name
    return {name: file for file, name in flat.items()}


def prepare(folder: Path, *, force: bool) -> None:
    """Create the folder of an export; raise UserError if it is not empty, unless forced."""
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UserError(
            f"{folder}: is not empty; name a new folder, or add --force to replace its files"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be created ({error.strerror}); name another folder"
        ) from error


def keep_out(folder: Path, root: Path, what: str) -> None:
    """Raise UserError if the output folder is `root` or lies in it; `what` says what is there."""
    if folder.resolve().is_relative_to(root.resolve()):
        raise UserError(f"-o {folder}: lies in {root}, where {what}; name another folder")


def write_tags(folder: Path, tags: Mapping[str, Sequence[str]], splits: Mapping[str, str]) -> None:
    """Write the tags and splits of images to labels.csv, which no other file of an export holds.

    Rows of earlier exports into the folder are kept.
    """
    path, rows = folder / LABELS, dict[str, list[str]]()
    if path.is_file():
        rows = {row.image: [row.image, row.cell, row.split or ""] for row in read_labels(path)}
    rows |= {name: [name, ";".join(tags[name]), splits[name]] for name in tags}
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *rows.values()])
    write_atomically(path, stream.getvalue().encode())


def _place(source: Path, path: Path, *, copy: bool) -> None:
    """Copy or link an image file into the export, byte for byte.

    A link is a hard link, or a symbolic one across file systems. Raises UserError if the image
    file is missing.
    """
    if not source.is_file():
        raise UserError(f"{source}: no such file; put the image there, or omit --images")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        if copy:
            shutil.copyfile(source, part)
        else:
            _link(source.resolve(), part)
        os.replace(part, path)
    finally:
        # os.replace does nothing, and leaves the part, if both are hard links to the same file.
        part.unlink(missing_ok=True)


def _link(source: Path, path: Path) -> None:
    with suppress(OSError):
        path.hardlink_to(source)
        return
    path.symlink_to(source)
