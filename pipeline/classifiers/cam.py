"""The plain classifier behind class activation maps (Zhou et al., CVPR 2016), as IRN trains it (its specification, section 2).

    A = theta * F(x)          class maps, [C,h,w] at stride 16, theta a 1x1 convolution without bias
    logits = GAP(A)           global average pooling
    loss = -1/C sum_c [ y_c ln sigma(logits_c) + (1 - y_c) ln sigma(-logits_c) ]

Differences from the published code: the momentum is what the parameters say (there it is lost), classes are any number.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.augmentation import LongSide, as_image, training_crop
from pipeline.backbones import Backbone, fix_batch_norm
from pipeline.datasets.index import Index
from pipeline.training import Ranks


class CamClassifier(nn.Module):
    """Backbone, 1x1 head, average pooling.

    classes: number of classes; backbone, weights: see Backbone; frozen_stages: backbone stages that never learn.
    """

    def __init__(self, classes: int, backbone: str, weights: str = "none", frozen_stages: int = 0) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, weights)
        self.backbone.freeze(frozen_stages)
        self.head = nn.Conv2d(self.backbone.channels[-1], classes, 1, bias=False)

    def maps(self, normalised: Tensor) -> Tensor:
        """Class maps [B,C,h,w] of normalised pictures [B,3,H,W], without ReLU."""
        return self.head(self.backbone(normalised)[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B,C] of pictures [B,3,H,W] in 0..255."""
        return self.maps(self.backbone.normalise(images)).mean((2, 3))


class TaggedCrops:
    """Training samples: (uint8 crop [3,S,S], tags as a 0/1 vector [C]), augmented anew at each access."""

    def __init__(
        self, index: Index, names: Sequence[str], resize: tuple[int, int], crop: int, mean: tuple[float, ...]
    ) -> None:
        self.index, self.names = index, list(names)
        self.augment = training_crop(LongSide(*resize), crop, mean)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        name = self.names[number]
        target = torch.zeros(len(self.index.classes))
        target[list(self.index[name].tags)] = 1
        return self.augment(as_image(self.index.image(name))), target


def objective(network: nn.Module, batch: tuple[Tensor, Tensor], ranks: Ranks) -> Mapping[str, Tensor]:
    """The multi-label soft margin loss of a batch (images [B,3,S,S], targets [B,C])."""
    images, targets = batch
    return {"loss": F.multilabel_soft_margin_loss(network(images), targets)}


def prepare(network: nn.Module) -> None:
    """Batch normalisation stays as pretrained: running statistics are used and never updated."""
    fix_batch_norm(network)
