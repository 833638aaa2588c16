"""What every classifier method shares: a backbone, a 1x1 head, class maps whose mean is the logit."""

from typing import ClassVar

from torch import Tensor, nn

from pipeline.backbones import Backbone


class Classifier(nn.Module):
    """Backbone and 1x1 head without bias: A = theta * F(x), logits = GAP(A) (Zhou et al., CVPR 2016).

    classes: number of classes; backbone, weights: see Backbone.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    """Parameters of the method that shape the network; they are stored with its weights."""

    def __init__(self, classes: int, backbone: str, weights: str = "none") -> None:
        super().__init__()
        self.backbone = Backbone(backbone, weights)
        self.head: nn.Module = nn.Conv2d(self.backbone.channels[-1], classes, 1, bias=False)

    def new_parameters(self) -> list[nn.Parameter]:
        """Parameters without pretrained values: all but the backbone's."""
        return [p for name, p in self.named_parameters() if not name.startswith("backbone.")]

    def features(self, normalised: Tensor) -> Tensor:
        """The coarsest features [B,D,h,w] of normalised pictures [B,3,H,W]."""
        return self.backbone(normalised)[-1]

    def maps(self, normalised: Tensor, tags: Tensor) -> Tensor:
        """Class maps [B,C,h,w] at stride 16 of normalised pictures [B,3,H,W], without ReLU.

        tags: 0/1 [B,C], the classes in each picture, for methods whose maps depend on them.
        """
        return self.head(self.features(normalised))

    def merge(self, one: Tensor, other: Tensor) -> Tensor:
        """The rectified maps of a picture and of its mirror image as one, here their sum."""
        return one + other
