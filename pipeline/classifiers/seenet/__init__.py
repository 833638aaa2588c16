"""SeeNet, the self-erasing network (Hou, Jiang, Wei and Cheng, NeurIPS 2018): three branches on one
backbone, the first of which tells the others where to look.

    X: features,  M: attention of branch A (in [0,1]),  d_h = erase,  d_l = background
    T = 0 where M >= d_h,  -1 where M < d_l,  +1 elsewhere                           (Strategy I)
    S_A: head(X),  S_B: head'(X T),  S_C: head'(X 1[M < (d_h + d_l)/2])              (Strategy II)
    loss = BCE(S_A, y) + BCE(S_B, y) + BCE(S_C, 0)

Branch B must recognize the classes without what branch A attends to, and branch C must recognize
nothing in what A leaves as background. BCE is the multi-label soft margin. B and C share a head, as
the parameter names of the released network say: with a head of its own, C learns to deny every
class within a hundred steps, and nothing reaches the features.

All branches learn from the first step on, as the authors say they do; their training code was never
published. In a short training B and C then pull the features before these know the classes:
`warmup` is the share of the steps in which B and C learn on the features without changing them.

A reversed sign would mean nothing at a feature that may itself be negative, so where it reverses,
X is rectified first. Behind VGG16's last ReLU that changes nothing; to rectify EfficientNet-Lite0's
linear last layer everywhere slows branch A down (its loss after 60 steps on photographs was 0.39
instead of 0.27).

A map is the maximum of A's and B's, each divided by its own maximum, as published (`fusion: max`),
or their sum (`sum`), in which a branch that found little stays small: the maximum of two maps that
are each 1 somewhere has no low background, for which the paper has a saliency model.

Differences from the published code: the sign does reverse (there background = 0 keeps it from ever
doing so), every image of a batch has its own mask, and what is erased gets no gradient in any
channel. The 3x3 convolutions begin as the identity instead of Gaussian, so that a head begins as
the plain classifier's: 80 steps on EfficientNet-Lite0 taught it nothing with random ones of He's
scale, and less with Gaussian noise of the published 0.01 on top of the identity. Dropout before
branch A's 1x1 convolution, which also makes T noisy, slowed it down as well and is left out. The
1x1 convolutions have no bias, as everywhere here: a map holds evidence alone, and S_C cannot meet
its target by an offset.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pipeline.classifiers.base import Classifier, TrainingData, classification_loss, present
from pipeline.core.trainer import LossFn, TrainState
from pipeline.nets.backbones import Backbone

Fusion = Literal["sum", "max"]


class SeeNet(Classifier):
    """Two heads of 3x3 convolutions and a 1x1 one: branch A's, and that of B and C.

    Args:
        classes, backbone: As of Classifier.
        depth, width: Number and channels of the 3x3 convolutions.
        erase, background: Thresholds d_h and d_l, shares of the attention's maximum.
        fusion: How the maps of A and B become one.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ("depth", "width", "erase", "background", "fusion")

    def __init__(
        self,
        classes: int,
        backbone: Backbone,
        *,
        depth: int,
        width: int,
        erase: float,
        background: float,
        fusion: Fusion,
    ) -> None:
        super().__init__(classes, backbone)
        self.erase, self.background, self.fusion = erase, background, fusion
        channels = backbone.channels[-1]
        self.head: nn.Sequential = new_head(channels, depth, width, classes)
        self.head_erased = new_head(channels, depth, width, classes)

    @staticmethod
    def loss_fn(data: TrainingData, warmup: float) -> LossFn:
        """Return the SeeNetLoss."""
        return SeeNetLoss(warmup)

    def new_parameters(self) -> list[nn.Parameter]:
        """Return those of the 1x1 convolutions: the 3x3 ones begin as the identity and learn at the
        backbone's rate, as published.

        At ten times that rate nothing was learned within 80 steps of AdamW.
        """
        heads = (self.head, self.head_erased)
        return [parameter for layers in heads for parameter in layers[-1].parameters()]

    def forward(
        self, images: Tensor, tags: Tensor, detached: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits [B,C] of the branches A, B and C for images [B,3,H,W] in 0..255 with tags
        0/1 [B,C]; `detached` stops the gradient from B and C to the features.
        """
        features = self.features(self.backbone.normalize(images))
        initial = self.head(features)
        attended = attention(initial.detach(), tags)
        seen = features.detach() if detached else features
        mask = ternary_mask(attended, self.erase, self.background)
        erased = self.head_erased(apply_mask(seen, mask))
        cut = (self.erase + self.background) / 2
        rest = self.head_erased(seen * background_mask(attended, cut))
        return initial.mean((2, 3)), erased.mean((2, 3)), rest.mean((2, 3))

    def maps(self, normalized: Tensor, tags: Tensor) -> Tensor:
        """Return branch A's and B's rectified maps [B,C,h,w] fused: their sum, or the maximum of
        each divided by its maximum, in [0,1].

        normalized: [B,3,H,W]; tags: 0/1 [B,C], the classes whose attention is erased for branch B.
        The maxima are those of the maps as computed; published are those after upsampling to the
        image.
        """
        features = self.features(normalized)
        initial = self.head(features)
        mask = ternary_mask(attention(initial, tags), self.erase, self.background)
        erased = self.head_erased(apply_mask(features, mask))
        if self.fusion == "sum":
            return initial.relu() + erased.relu()
        return torch.maximum(divide_by_maximum(initial), divide_by_maximum(erased))

    def merge_flipped(self, maps: Tensor, flipped: Tensor) -> Tensor:
        """Fuse the maps of both images as those of the branches."""
        return maps + flipped if self.fusion == "sum" else torch.maximum(maps, flipped)


@dataclass(frozen=True, slots=True)
class SeeNetLoss:
    """The loss of a batch (images [B,3,S,S], tags [B,C]) and the term of each branch.

    warmup: Share of the training in which branches B and C do not change the features.
    """

    warmup: float

    def __call__(
        self, network: nn.Module, batch: tuple[Tensor, Tensor], step: TrainState
    ) -> Mapping[str, Tensor]:
        """Return `loss`, the sum of the terms `initial`, `erased` and `background`."""
        images, tags = batch
        logits = network(images, present(tags), step.progress < self.warmup)
        targets = (tags, tags, tags.clamp(max=0))  # unknown classes may be in what is left
        terms = [
            classification_loss(values.float(), target)
            for values, target in zip(logits, targets, strict=True)
        ]
        names = ("initial", "erased", "background")
        return {"loss": torch.stack(terms).sum(), **dict(zip(names, terms, strict=True))}


def new_head(channels: int, depth: int, width: int, classes: int) -> nn.Sequential:
    """Create convolutions from features [B,channels,h,w] to maps [B,classes,h,w].

    The `depth` 3x3 convolutions of `width` channels are initialized to pass the features on
    (identity_conv), the 1x1 convolution with the published Gaussian.
    """
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [identity_conv(channels, width), nn.ReLU(inplace=True)]
        channels = width
    pointwise = nn.Conv2d(channels, classes, 1, bias=False)
    nn.init.normal_(pointwise.weight, std=0.01)
    return nn.Sequential(*layers, pointwise)


def identity_conv(inputs: int, outputs: int) -> nn.Conv2d:
    """Create a 3x3 convolution initialized to copy its channels; with fewer outputs than inputs,
    each output is the mean of several.
    """
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    folds = min(inputs, outputs)
    linked = torch.arange(outputs)[:, None] % folds == torch.arange(inputs) % folds
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, :, 1, 1] = linked / linked.sum(1, keepdim=True)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def attention(maps: Tensor, tags: Tensor) -> Tensor:
    """Return M: the maximum of the present classes' rectified maps, each stretched to [0,1];
    [B,1,h,w], float32.

    maps: [B,C,h,w]; tags: 0/1 [B,C]. All 0 where an image has no tags or no present class rises
    anywhere.
    """
    positive = maps.float().relu()
    low, high = positive.amin((2, 3), keepdim=True), positive.amax((2, 3), keepdim=True)
    stretched = (positive - low) / torch.where(high > low, high - low, 1)
    return (stretched * tags[:, :, None, None]).amax(1, keepdim=True)


def ternary_mask(attended: Tensor, erase: float, background: float) -> Tensor:
    """Return T from M [B,1,h,w]; all +1 in images without attention, where foreground and
    background cannot be distinguished.
    """
    inside, outside = attended >= erase, attended < background
    mask = torch.ones_like(attended).masked_fill(outside, -1).masked_fill(inside, 0)
    return torch.where(attended.amax((2, 3), keepdim=True) > 0, mask, 1)


def apply_mask(features: Tensor, mask: Tensor) -> Tensor:
    """Return X T of X [B,D,h,w] and T [B,1,h,w]; where T is -1, X is rectified first."""
    return torch.where(mask < 0, -features.relu(), features * mask)


def background_mask(attended: Tensor, cut: float) -> Tensor:
    """Return 1 where M [B,1,h,w] is below `cut` times its maximum, else 0; all 0 in images without
    attention.
    """
    return (attended < cut * attended.amax((2, 3), keepdim=True)).to(attended)


def divide_by_maximum(maps: Tensor) -> Tensor:
    """Divide each rectified map of [B,C,h,w] by its maximum; all 0 stays all 0."""
    positive = maps.float().relu()
    high = positive.amax((2, 3), keepdim=True)
    return positive / torch.where(high > 0, high, 1)
