"""S2C, from SAM to CAMs (Kweon and Yoon, CVPR 2024): the features of the classifier are contrasted
by class-agnostic segments (SSC), and its maps learn from masks prompted at their own peaks (CPM).

    F = ReLU(embed(backbone(x))),   A = theta * F,   logits = GAP(A)                    (section 3)

with all layers 1x1 without bias. losses.py has the loss, prompts.py the masks.

Images are encoded once, whole (stage segments), and crops are traced back to them by the origins of
their pixels, where the published code encodes every crop again.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.classifiers.base import Classifier, TaggedCrops, TrainingData
from pipeline.core.trainer import LossFn
from pipeline.errors import UserError
from pipeline.nets.backbones import Backbone

if TYPE_CHECKING:  # as in base.py
    from pipeline.segmenters.prompting import PromptableSegments


class SegmentsError(UserError):
    """S2C lacks the segments that it learns from; the message says which parameter to change."""


class S2C(Classifier):
    """A classifier with a 1x1 layer between backbone and head, whose features are contrasted.

    Args:
        classes, backbone: As of Classifier.
        features: Channels of F.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ("features",)

    def __init__(self, classes: int, backbone: Backbone, *, features: int) -> None:
        super().__init__(classes, backbone)
        self.embed = nn.Conv2d(backbone.channels[-1], features, 1, bias=False)
        self.head: nn.Module = nn.Conv2d(features, classes, 1, bias=False)
        for layer in (self.embed, self.head):  # Xavier, as published
            nn.init.xavier_uniform_(layer.get_parameter("weight"))

    def features(self, normalized: Tensor) -> Tensor:
        """Return F [B,D,h,w], at least 0, of normalized images [B,3,H,W]."""
        return self.embed(super().features(normalized)).relu()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return class maps A [B,C,h,w] without ReLU and features F [B,D,h,w] of images [B,3,H,W]
        in 0..255.
        """
        features = self.features(self.backbone.normalize(images))
        return self.head(features), features

    @staticmethod
    def dataset(data: TrainingData) -> "SegmentedCrops":
        """Return crops with tags, segments and origins; raises SegmentsError without segments."""
        return SegmentedCrops(data)

    @staticmethod
    def loss_fn(
        data: TrainingData,
        *,
        cpm: bool,
        mask: str,
        scales: Sequence[float],
        peak: float,
        distance: float,
        **options: Any,
    ) -> LossFn:
        """Return the S2CLoss of a batch of SegmentedCrops.

        Args:
            data: Training data with segments.
            cpm: Whether maps learn from prompted masks.
            mask: Rule by which the segmenter selects a prompted mask.
            scales, peak, distance: See Prompting.
            options: See S2CLoss.

        Raises:
            SegmentsError: There are no segments, or CPM is on and nothing prompts by this rule.
        """
        # here, for stage cams imports this module and needs neither losses nor prompts
        from pipeline.classifiers.s2c.losses import S2CLoss
        from pipeline.classifiers.s2c.prompts import Prompting

        segments = require_segments(data)
        if not cpm:
            return S2CLoss(segments.reader, data.names, None, **options)
        if not segments.prompters:
            raise SegmentsError(
                "classifier.s2c.cpm: masks are prompted from embeddings, which are missing; set "
                "segments.embeddings to true, or classifier.s2c.cpm to false"
            )
        if mask not in segments.prompters:
            raise SegmentsError(
                f"classifier.s2c.mask: the segmenter has no rule {mask!r} (superpixels give one "
                "mask, SAM chooses among three); set classifier.s2c.mask to "
                f"{' or '.join(segments.prompters)}, or segments.backend to sam"
            )
        prompting = Prompting(segments.prompters[mask], scales, peak, distance)
        return S2CLoss(segments.reader, data.names, prompting, **options)


class SegmentedCrops(TaggedCrops):
    """Training samples (uint8 crop [3,S,S], tags f4 [C], segments, origins, number), augmented at
    each access.

    segments: int32 [S,S], 0 for none; origins: int32 [2,S,S], the pixel (y, x) of the image that
    each pixel of the crop comes from, -1 outside; number: index of the image in the data's names.
    """

    OUTSIDE: ClassVar[int] = -1

    def __init__(self, data: TrainingData) -> None:
        super().__init__(data)
        self.segments = require_segments(data).reader

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        name = self.names[number]
        size, skipped = self.index.size(name), name in self.segments.skipped
        image, origins, _ = self.augmented(name, np.indices(size, np.int32))
        ids = np.zeros(size) if skipped else self.segments.array(name, "segments")
        y, x = origins.clamp(min=0).long()
        in_crop = torch.from_numpy(ids.astype(np.int32))[y, x] * (origins[0] >= 0)
        return image, torch.from_numpy(self.index.target(name)), in_crop, origins, number


def require_segments(data: TrainingData) -> "PromptableSegments":
    """Return the PromptableSegments of the data; raises SegmentsError if there are none."""
    if data.segments is None:
        raise SegmentsError(
            "classifier.method: s2c needs segments; set segments.backend to superpixels or sam"
        )
    return data.segments
