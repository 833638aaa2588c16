"""S2C's classifier: a 1x1 layer of its own between backbone and head, whose features are
contrasted.
"""

from typing import ClassVar

from torch import Tensor, nn

from pipeline.classifiers.base import Classifier


class Network(Classifier):
    """F = ReLU(embed(backbone(x))), A = theta * F, logits = GAP(A), all layers 1x1 without bias
    (paper, section 3).

    features: channels of F. New layers begin with Xavier's weights, as published.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ("features",)

    def __init__(
        self, classes: int, backbone: str, weights: str = "none", *, features: int
    ) -> None:
        super().__init__(classes, backbone, weights)
        self.embed = nn.Conv2d(self.backbone.channels[-1], features, 1, bias=False)
        self.head: nn.Module = nn.Conv2d(features, classes, 1, bias=False)
        for layer in (self.embed, self.head):
            nn.init.xavier_uniform_(layer.get_parameter("weight"))

    def features(self, normalized: Tensor) -> Tensor:
        """F [B,D,h,w], not negative, of normalized images [B,3,H,W]."""
        return self.embed(super().features(normalized)).relu()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class maps A [B,C,h,w] without ReLU and features F [B,D,h,w] of images [B,3,H,W] in
        0..255.
        """
        features = self.features(self.backbone.normalize(images))
        return self.head(features), features
