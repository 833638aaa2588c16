"""The plain classifier: backbone, 1x1 head, average pooling."""

from torch import Tensor

from pipeline.classifiers.base import Classifier


class Network(Classifier):
    """Logits are the means of the class maps, so the maps locate the classes."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B,C] of images [B,3,H,W] in 0..255."""
        return self.head(self.features(self.backbone.normalize(images))).mean((2, 3))
