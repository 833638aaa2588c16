"""One image of one run: its arrays, loaded on demand, and the label map of every step."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import numpy as np

from pipeline.browser.run import Run
from pipeline.core.artifacts import IGNORE, ArtifactError, Record
from pipeline.data.grid import upsample
from pipeline.data.masks import read_instances, read_semantic
from pipeline.instances.base import exclusive_record
from pipeline.labelling.pseudo_labels import class_maps
from pipeline.metrics.semantic import Confusion, assign
from pipeline.views.report_data import TITLES

Value = TypeVar("Value")
STEPS: Mapping[str, str] = {
    **{step: title.lower() for step, title in TITLES.items()},
    "truth": "ground truth",
}
"""Steps with a label map, in the order of the pipeline, and their titles."""
SPATIAL = ("segments", "seeds", "boundary", "semantic")
"""Arrays whose shape is the image's, or its stride-4 grid's."""


class Sample:
    """An image `name` of a run; everything is computed once."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name, self.index = run, name, run.index
        self.entry = self.index[name]
        self.size = (self.entry.height, self.entry.width)
        self._cache: dict[Hashable, Any] = {}

    def cached(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return what `make` returned for this key."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def image(self) -> np.ndarray:
        """Return the image uint8 [H,W,3]; raises DatasetError."""
        return self.cached("image", lambda: self.index.image(self.name))

    def has(self, source: str) -> bool:
        """Whether a readable artifact has the image, or it has `truth` or `true instances`."""
        if source == "truth":
            return self.index.has_masks(self.name)
        if source == "true instances":
            return self.index.has_instances(self.name)
        intact = self.run.exists(source) and self.run.problem(source) is None
        return intact and self.name in self.run.reader(source)

    def record(self, format_: str) -> Record:
        """Return the arrays of an artifact, instances as an id map.

        Raises ArtifactError, also for arrays whose size is not the image's.
        """
        return self.cached(format_, lambda: self._record(format_))

    def _record(self, format_: str) -> Record:
        reader = self.run.reader(format_)
        try:
            # embeddings of segments are large, and nothing here needs them
            record: Record = (
                {"segments": reader.array(self.name, "segments")}
                if format_ == "segments"
                else exclusive_record(reader[self.name])
            )
        except KeyError as error:
            raise ArtifactError(f"{reader.path}: has no image {self.name!r}") from error
        height, width = self.size
        grid = (height - 1) // 4 + 1, (width - 1) // 4 + 1
        spatial = next((record[key].shape for key in SPATIAL if key in record), ())
        found = tuple(map(int, record["size"])) if "size" in record else spatial
        if found not in (self.size, grid):
            raise ArtifactError(
                f"{reader.path}: {self.name!r} is {found[0]} x {found[1]}, but its image is "
                f"{height} x {width} pixels; it was made from other images: `dvc repro {format_}`"
            )
        return record

    def ground_truth(self) -> np.ndarray:
        """Return the ground-truth label map uint8 [H,W]; raises DatasetError."""
        return self.cached("truth", lambda: read_semantic(self.index, self.name))

    def true_instances(self) -> np.ndarray:
        """Return the ground-truth instance ids [H,W]; raises DatasetError."""
        return self.cached("true instances", lambda: read_instances(self.index, self.name)[0])

    def cams(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the activation maps f4 [K,H,W] and their class ids [K]."""
        record = self.record("cams")
        return self.cached("maps", lambda: upsample(record["cams"], self.size)), record["labels"]

    def label_map(self, step: str, threshold: float | None = None) -> np.ndarray:
        """Return the label map uint8 [H,W] of a step of STEPS.

        threshold: background score for activation maps and the walk; None for the run's own.
        """
        if step == "truth":
            return self.ground_truth()
        if step == "cams":
            chosen = self.run.value("scores", "background") if threshold is None else threshold
            return assign(*self.cams(), chosen)
        if step == "walk":
            chosen = self.run.value("labels", "background") if threshold is None else threshold
            normalize = self.run.value("labels", "normalize")
            return assign(*class_maps(self.record("walk"), normalize), chosen)
        return self.record(step)["seeds" if step == "seeds" else "semantic"]

    def miou(self, labels: np.ndarray) -> float | None:
        """Return the mIoU of a label map on this image in [0,1]; None without a mask."""
        if not self.has("truth"):
            return None
        confusion = Confusion(self.index.classes)
        confusion.add(self.ground_truth(), labels)
        return None if np.isnan(confusion.miou) else confusion.miou


def difference(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return the share of pixels on which two label maps uint8 [H,W] differ.

    Pixels that either ignores do not count; None if none is left.
    """
    counted = (one != IGNORE) & (other != IGNORE)
    total = np.count_nonzero(counted)
    return np.count_nonzero(counted & (one != other)) / total if total else None
