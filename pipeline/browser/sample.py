"""One image of one run: its arrays, each read when first needed, and label maps of every step to
compare.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import numpy as np

from pipeline.browser.run import Run
from pipeline.core.artifacts import IGNORE, ArtifactError, Record
from pipeline.data.grid import upsample
from pipeline.data.masks import read_instances, read_semantic
from pipeline.instances.base import exclusive_record
from pipeline.metrics.semantic import Confusion, assign
from pipeline.views.report_data import TITLES

Value = TypeVar("Value")
STEPS: Mapping[str, str] = {
    **{step: title.lower() for step, title in TITLES.items() if step != "walk"},
    "truth": "truth",
}
"""Steps whose label map is stored or at hand, in the order of the pipeline, and what they are
called.
"""


class Sample:
    """An image `name` of a run; everything is computed once."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name = run, name
        self.index = run.index
        self.entry = self.index[name]
        self.size = (self.entry.height, self.entry.width)
        self._known: dict[Hashable, Any] = {}

    def remember(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What `make` returned for this key."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def image(self) -> np.ndarray:
        """uint8 [H,W,3]; raises DatasetError."""
        return self.remember("image", lambda: self.index.image(self.name))

    def has(self, source: str) -> bool:
        """Whether the image is in an artifact that can be opened, or has a mask (`truth`, `true
        instances`).
        """
        if source == "truth":
            return self.index.has_masks(self.name)
        if source == "true instances":
            return self.index.has_instances(self.name)
        return (
            self.run.exists(source)
            and self.run.problem(source) is None
            and self.name in self.run.reader(source)
        )

    def record(self, format_: str) -> Record:
        """The arrays of an artifact, instances as an id map; raises ArtifactError, also for arrays of
        another size.
        """
        return self.remember(format_, lambda: self._record(format_))

    def _record(self, format_: str) -> Record:
        reader = self.run.reader(format_)
        try:
            # embeddings of segments are large, and nothing here shows them
            whole = (
                {"segments": reader.array(self.name, "segments")}
                if format_ == "segments"
                else reader[self.name]
            )
            record = exclusive_record(whole)
        except KeyError as error:
            raise ArtifactError(f"{reader.path}: has no image {self.name!r}") from error
        if (found := _size(record)) not in (self.size, _grid(self.size)):
            raise ArtifactError(
                f"{reader.path}: {self.name!r} is of {found[0]} x {found[1]}, its image of "
                f"{self.size[0]} x {self.size[1]} pixels; it was made from other images: `dvc repro {format_}`"
            )
        return record

    def truth(self) -> np.ndarray:
        """The true label map uint8 [H,W]; raises DatasetError."""
        return self.remember("truth", lambda: read_semantic(self.index, self.name))

    def true_instances(self) -> np.ndarray:
        """The true instance ids [H,W]; raises DatasetError."""
        return self.remember("true instances", lambda: read_instances(self.index, self.name)[0])

    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        """The activation maps at full size, f4 [K,H,W], and their class ids [K]."""
        record = self.record("cams")
        return self.remember("maps", lambda: upsample(record["cams"], self.size)), record["labels"]

    def label_map(self, step: str, threshold: float) -> np.ndarray:
        """The label map uint8 [H,W] of a step of STEPS; threshold: the background's, against
        activation maps.
        """
        if step == "truth":
            return self.truth()
        if step == "cams":
            return assign(*self.maps(), threshold)
        return self.record(step)["seeds" if step == "seeds" else "semantic"]

    def miou(self, labels: np.ndarray) -> float | None:
        """mIoU of a label map on this image in 0..1, None without a mask."""
        if not self.has("truth"):
            return None
        confusion = Confusion(self.index.classes)
        confusion.add(self.truth(), labels)
        return None if np.isnan(confusion.miou) else confusion.miou


def difference(one: np.ndarray, other: np.ndarray) -> float | None:
    """Share of pixels on which two label maps uint8 [H,W] differ, of those that neither ignores;
    None if there are none.
    """
    counted = (one != IGNORE) & (other != IGNORE)
    total = np.count_nonzero(counted)
    return np.count_nonzero(counted & (one != other)) / total if total else None


def _size(record: Record) -> tuple[int, ...]:
    """(height, width) of what a record holds."""
    if "size" in record:
        return tuple(map(int, record["size"]))
    return record[
        next(key for key in ("segments", "seeds", "boundary", "semantic") if key in record)
    ].shape


def _grid(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1
