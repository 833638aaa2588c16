"""Prompted masks: how a classifier in training obtains the mask of an object.

A prompter answers from what the segmenter stored for an image (stage segments), so that no image is
encoded again. SAM and the superpixels have one each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from pipeline.core.artifacts import Reader, Record


class Query(NamedTuple):
    """One prompt.

    record: the segmenter's record of the image, embeddings included; points_xy: f4 [P,2], P >= 1,
    x then y in pixels of the image (the center of the first pixel is 0.5, 0.5), all on the object.
    """

    record: Record
    points_xy: np.ndarray


class Answer(NamedTuple):
    """The mask of the object, bool [H,W] on the prompter's device, and its stability in [0,1]."""

    mask: Tensor
    stability: float


class Prompter(Protocol):
    """Answers prompts from stored embeddings."""

    def prompt(self, queries: Sequence[Query]) -> list[Answer]:
        """Return one answer per query, in their order; queries may be of several images."""


@dataclass(frozen=True, slots=True)
class PromptableSegments:
    """The stored segments of the training images, and the prompter that understands their
    embeddings (None: no prompts).
    """

    reader: Reader
    prompter: Prompter | None
