"""One look at every picture and mask file: decoded whole, measured, compared, and its digest taken."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets.archive import INSTANCES, SEMANTIC
from pipeline.datasets.builtin import encode_png, shrink
from pipeline.datasets.images import decode_image, read_bytes
from pipeline.datasets.masks import decode_values, number_instances, translate
from pipeline.datasets.problems import DatasetError, Problem, error, warning
from pipeline.datasets.source import OUTSIDE, Entry, leaves
from pipeline.label_map import IGNORE


@dataclass(frozen=True, slots=True)
class Finding:
    """What the files of an entry turned out to be; size (0, 0) where the picture cannot be read.

    drawn: the PNG files of its semantic and its instance mask where they had to be drawn.
    """

    size: tuple[int, int]
    digest: str
    semantic: str | None
    instances: str | None
    problems: tuple[Problem, ...]
    drawn: tuple[bytes, bytes] | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """Looks at entries below `root`; labels are class name -> label in use, `values` the table of mask
    values."""

    root: Path
    labels: Mapping[str, int]
    values: Mapping[int, int]

    def __call__(self, entry: Entry) -> Finding:
        look = _Look(self)
        size = look.picture(entry)
        semantic = instances = drawn = None
        if size != (0, 0) and entry.render is None:
            semantic, instances = look.files(entry, size)
        elif size != (0, 0) and (drawn := look.rendered(entry, size)):
            semantic, instances = SEMANTIC.format(entry.id), INSTANCES.format(entry.id)
        return Finding(size, look.digest.hexdigest(), semantic, instances, tuple(look.problems), drawn)


class _Look:
    """The state of one inspection: digest so far and problems so far."""

    def __init__(self, inspection: Inspection) -> None:
        self.setting = inspection
        self.digest = hashlib.blake2b(digest_size=16)
        self.problems: list[Problem] = []

    def picture(self, entry: Entry) -> tuple[int, int]:
        """Size (H,W) of the decoded picture; (0, 0), and a problem, where it cannot be read."""
        try:
            data, path = self._read(entry.path)
            height, width = decode_image(data, path).shape[:2]
        except DatasetError as problem:
            self.problems += problem.problems
            return 0, 0
        return height, width

    def files(self, entry: Entry, size: tuple[int, int]) -> tuple[str | None, str | None]:
        """Check the mask files and say which of them are of use."""
        semantic = self._values(entry.semantic, size)
        instances = self._values(entry.instances, size)
        labels = None
        if semantic is not None and entry.semantic is not None:
            try:
                labels = translate(semantic, self.setting.values, self.setting.root / entry.semantic)
            except DatasetError as problem:
                self.problems += problem.problems
        if labels is None or instances is None:
            return entry.semantic, None
        return entry.semantic, entry.instances if self._complete(entry, labels, instances) else None

    def rendered(self, entry: Entry, size: tuple[int, int]) -> tuple[bytes, bytes] | None:
        """The semantic and the instance mask of the entry as PNG files; None, and a problem, where they cannot be drawn."""
        assert entry.render is not None
        try:
            semantic, instances = entry.render(self.setting.labels, size)
        except ValueError as problem:
            self.problems.append(error(entry.where, str(problem), "mend or delete the annotation"))
            return None
        drawn = encode_png(semantic), encode_png(shrink(instances))
        for data in drawn:
            self.digest.update(data)
        return drawn

    def _read(self, path: str) -> tuple[bytes, Path]:
        full = self.setting.root / path
        if leaves(self.setting.root, path):
            raise DatasetError(error(full, OUTSIDE, "copy it into the folder, or take a hard link"))
        data = read_bytes(full, "put the file there or take it off the list")
        self.digest.update(data)
        return data, full

    def _values(self, path: str | None, size: tuple[int, int]) -> np.ndarray | None:
        if path is None:
            return None
        try:
            data, full = self._read(path)
            values = decode_values(data, full)
            if values.shape != size:
                raise DatasetError(_other_size(full, values.shape, size))
        except DatasetError as problem:
            self.problems += problem.problems
            return None
        return values

    def _complete(self, entry: Entry, labels: np.ndarray, ids: np.ndarray) -> bool:
        """Whether every class of the label map has an instance; else the file does not tell how many there
        are of each."""
        classes = number_instances(ids, labels)[1]
        lacking = set(np.unique(labels).tolist()) - {0, IGNORE} - {int(label) + 1 for label in classes}
        if not lacking:
            return True
        named = ", ".join(sorted(name for name, label in self.setting.labels.items() if label in lacking))
        what = f"has no instance of {named}, which the semantic mask shows"
        self.problems.append(
            warning(
                self.setting.root / str(entry.instances), what, "the picture is left out of instance scores"
            )
        )
        return False


def _other_size(where: object, have: tuple[int, ...], want: tuple[int, int]) -> Problem:
    what = f"mask of {have[1]} x {have[0]} pixels on a picture of {want[1]} x {want[0]} (upright)"
    return error(
        where, what, "make the mask as large as the picture; turn it too where an EXIF tag turns the picture"
    )
