"""What is asked of a segmenter while a classifier trains: the mask of the object that some points
lie on.

Segments as training finds them: the file, and the prompter that understands what it stores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from pipeline.core.artifacts import Reader, Record


class Query(NamedTuple):
    """One prompt.

    record: what the segmenter gave for the image, embeddings included; points_xy: f4 [P,2], x then
    y in pixels of the image (the first pixel's center lies at 0.5, 0.5), P >= 1; all lie on the
    object that is asked for.
    """

    record: Record
    points_xy: np.ndarray


class Answer(NamedTuple):
    """The mask [H,W] (bool, on the prompter's device) of the object, and how stable it is, in
    [0,1].
    """

    mask: Tensor
    stability: float


class Prompter(Protocol):
    """Answers prompts from stored embeddings, without looking at an image again."""

    def prompt(self, queries: Sequence[Query]) -> list[Answer]:
        """One answer a query, in their order; queries of several images may come together."""


@dataclass(frozen=True, slots=True)
class Guidance:
    """Segments of the training images, and the prompter that understands their embeddings (None: no
    prompts).
    """

    segments: Reader
    prompter: Prompter | None
