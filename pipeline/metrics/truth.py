"""Ground truth to score against: the masks of the source, or else a trial set, which persons
corrected and no other step learns of.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline.core.artifacts import IGNORE, Record
from pipeline.data.index import Index
from pipeline.data.masks import read_instances, read_semantic
from pipeline.readers.hints import read_hints, render

Instances = tuple[np.ndarray, np.ndarray]
"""Ids uint16 [H,W], 0 none, and the 0-based classes uint8 [N] of ids 1..N."""


class Truth:
    """The masks of the source."""

    interval = False
    """Whether scores are to be given with a confidence interval."""

    def __init__(self, index: Index) -> None:
        self.index, self.classes = index, index.classes

    def known(self, names: Sequence[str]) -> list[str]:
        """Return the images that have a mask."""
        return [name for name in names if self.index.has_masks(name)]

    def semantic(self, name: str) -> np.ndarray:
        """Return the label map of an image, uint8 [H,W], 255 void."""
        return read_semantic(self.index, name)

    def instances(self, name: str) -> Instances | None:
        """Return the instances of an image, None if it has no such mask."""
        return read_instances(self.index, name) if self.index.has_instances(name) else None


class TrialTruth(Truth):
    """What lies in hints/trial/ of the source: the truth of some of its images."""

    interval = True

    def __init__(self, index: Index, source: Path) -> None:
        super().__init__(index)
        self.hints = read_hints(source, index, trial=True)
        self._record = lru_cache(maxsize=1)(self._rendered)

    def _rendered(self, name: str) -> Record:
        return render(self.hints.images[name], self.index, name, None)

    def known(self, names: Sequence[str]) -> list[str]:
        """Return the images of the trial set."""
        return [name for name in names if name in self.hints.images]

    def semantic(self, name: str) -> np.ndarray:
        """Return what was said of an image, void elsewhere."""
        return self._record(name)["pixels"]

    def instances(self, name: str) -> Instances | None:
        """Return the objects that were outlined; None if there are only labels of pixels."""
        record = self._record(name)
        if not len(record["objects"]) and np.isin(record["pixels"], (0, IGNORE), invert=True).any():
            return None
        return record["instances"], record["objects"][:, 0].astype(np.uint8)
