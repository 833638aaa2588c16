"""The plain classifier of CAM.

It is the classifier behind class activation maps (Zhou et al., CVPR 2016), as IRN trains it
(Ahn et al., CVPR 2019): backbone, 1x1 convolution, global average pooling, and the multi-label soft
margin

    loss = -1/C sum_c [ y_c ln sigma(logits_c) + (1 - y_c) ln sigma(-logits_c) ].

Differences from IRN's published code: the momentum parameter takes effect (there it is lost), and
the number of classes is arbitrary.
"""

from torch import Tensor

from pipeline.classifiers.base import Classifier


class Cam(Classifier):
    """The plain classifier."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B,C] of images [B,3,H,W] in 0..255."""
        return self.head(self.features(self.backbone.normalize(images))).mean((2, 3))
