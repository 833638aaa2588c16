"""Prompted masks: how a classifier in training, and the labels, obtain the mask of an object.

A prompter answers from what the segmenter stored for an image (stage segments), so that no image is
encoded again. SAM and the superpixels have one each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from pipeline.core.artifacts import Reader, Record

if TYPE_CHECKING:  # stage segments imports this module, and superpixels need no torch
    from torch import Tensor


class Query(NamedTuple):
    """One prompt.

    record: the segmenter's record of the image, embeddings included; points_xy: f4 [P,2], P >= 1,
    x then y in pixels of the image (the center of the first pixel is 0.5, 0.5), all on the object;
    outside_xy: f4 [Q,2], not on it; box_xyxy: around it, of all queries of a call or of none.
    """

    record: Record
    points_xy: np.ndarray
    outside_xy: np.ndarray = np.zeros((0, 2), np.float32)
    box_xyxy: tuple[float, float, float, float] | None = None


class Prompter(Protocol):
    """Answers prompts from stored embeddings."""

    def prompt(self, queries: Sequence[Query]) -> "list[Tensor]":
        """Return how sure each pixel is to be on the object, one f4 [H,W] per query in their order,
        on the prompter's device: above 0 on the mask, at most 0 elsewhere.

        Queries may be of several images.
        """


@dataclass(frozen=True, slots=True)
class PromptableSegments:
    """The stored segments of the training images, and the prompters that understand their
    embeddings, by the rule that each selects a mask by (none: no prompts).
    """

    reader: Reader
    prompters: Mapping[str, Prompter]
