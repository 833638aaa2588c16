"""A head on the stored features of a frozen network.

    A = theta * F(x),   logits = GAP(A)

with F pretrained and never changed, and the multi-label soft margin of the plain classifier. Stage
features computes F once per image; a step then costs a 1x1 convolution. A large frozen network with
little on it is what the best results from image-level labels stand on (WeCLIP, Zhang et al., CVPR
2024).

Samples are windows of the stored maps at scale 1; resizing, flips and colors would need the network
again. Class maps are extracted from images as those of any other method, at any scale.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.classifiers.base import Classifier, TaggedCrops, TrainingData
from pipeline.nets.backbones import Backbone


class Frozen(Classifier):
    """A classifier whose backbone stays as it was pretrained.

    Args:
        classes, backbone: As of Classifier.
    """

    def __init__(self, classes: int, backbone: Backbone) -> None:
        super().__init__(classes, backbone)
        backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> "Frozen":
        """Switch the head's mode; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, stored: Tensor) -> Tensor:
        """Return logits [B,C] of the backbone's features [B,D,h,w]."""
        return self.head(stored.float()).mean((2, 3))

    @staticmethod
    def dataset(data: TrainingData) -> TaggedCrops:
        """Return windows of the stored features."""
        return TaggedFeatures(data)


class TaggedFeatures(TaggedCrops):
    """Training samples (features f2 [D,s,s], tags f4 [C]): a random window of the size of
    the crop; cells beyond the image are 0.
    """

    def __init__(self, data: TrainingData) -> None:
        super().__init__(data)
        assert data.features is not None
        self.stored = data.features
        self.names = [name for name in data.names if name in data.features]

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        name = self.names[number]
        record = self.stored[name]
        features = torch.from_numpy(record["features"])
        side = -(-self.crop // int(record["stride"][0]))
        for axis in (1, 2):
            spare = features.shape[axis] - side
            start = int(torch.randint(max(0, spare) + 1, ()))
            features = features.narrow(axis, start, min(side, features.shape[axis]))
        below, right = (side - cells for cells in features.shape[1:])
        return F.pad(features, (0, right, 0, below)), torch.from_numpy(self.index.target(name))
