"""What every classifier method shares: a backbone, a 1x1 head, class maps whose mean is the logit.

Training samples of the classifiers: crops that carry the tags of their image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.data.augmentation import LongSide, as_image, training_crop
from pipeline.data.index import Index
from pipeline.nets.backbones import Backbone
from pipeline.segmenters.prompting import Guidance


class Classifier(nn.Module):
    """Backbone and 1x1 head without bias: A = theta * F(x), logits = GAP(A) (Zhou et al., CVPR
    2016).

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

    def features(self, normalized: Tensor) -> Tensor:
        """The coarsest features [B,D,h,w] of normalized images [B,3,H,W]."""
        return self.backbone(normalized)[-1]

    def maps(self, normalized: Tensor, tags: Tensor) -> Tensor:
        """Class maps [B,C,h,w] at stride 16 of normalized images [B,3,H,W], without ReLU.

        tags: 0/1 [B,C], the classes in each image, for methods whose maps depend on them.
        """
        return self.head(self.features(normalized))

    def merge(self, one: Tensor, other: Tensor) -> Tensor:
        """The rectified maps of an image and of its flip image as one, here their sum."""
        return one + other


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a classifier may learn from: images and tags of `index` under `names`, how crops are
    taken, and segments if there are any.

    resize: range of the longer side in pixels; crop: side of the square crop; mean: color (0..1)
    that fills it up.
    """

    index: Index
    names: Sequence[str]
    resize: tuple[int, int]
    crop: int
    mean: tuple[float, ...]
    guidance: Guidance | None = None

    def augment(self, outside: int = 0) -> Callable[..., Any]:
        """The random resize, flip and crop; pixels outside the image are `outside` in masks that go
        along.
        """
        return training_crop(LongSide(*self.resize), self.crop, self.mean, outside)


class TaggedCrops(Dataset[tuple[Tensor, Tensor]]):
    """(uint8 crop [3,S,S], tags [C]), augmented again at each access."""

    def __init__(self, material: TrainingData) -> None:
        self.material, self.augment = material, material.augment()

    def __len__(self) -> int:
        return len(self.material.names)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        name = self.material.names[number]
        index = self.material.index
        return self.augment(as_image(index.image(name))), torch.from_numpy(index.target(name))
