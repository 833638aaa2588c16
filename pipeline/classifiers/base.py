"""What every classifier method shares: the network that class maps come from, and training crops
with image-level labels.

    A = theta * F(x),   logits = GAP(A)

with F the coarsest features of the backbone and theta a 1x1 convolution without bias. The
logits are the means of the class maps A, so the maps locate the classes (Zhou et al., CVPR 2016).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from pipeline.core.artifacts import Reader
from pipeline.core.trainer import LossFn, TrainState
from pipeline.data.augmentation import Crops, LongSide, as_image
from pipeline.data.index import Index
from pipeline.nets.backbones import Backbone

if TYPE_CHECKING:  # stage cams imports this module, and needs no segmenter
    from pipeline.segmenters.prompting import PromptableSegments

EPSILON = 1e-5
"""Added to the maximum that a map is divided by, as published; an all-zero map stays zero."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a classifier may learn from.

    Args:
        index, names: The dataset and the ids of its images to learn from.
        resize: Range of the longer side in pixels.
        crop: Side of the square crop in pixels.
        mean: Color in 0..1 that fills a crop beyond the image.
        segments: Class-agnostic segments of the images, if there are any.
        colors: Transforms of the images' colors, see color_changes.
        features: The backbone's features of the images, for methods that learn from those.
    """

    index: Index
    names: Sequence[str]
    resize: tuple[int, int]
    crop: int
    mean: tuple[float, ...]
    segments: "PromptableSegments | None" = None
    colors: Sequence[v2.Transform] = ()
    features: Reader | None = None


class TaggedCrops(Crops):
    """Training samples (uint8 crop [3,S,S], tags f4 [C]: 1 present, 0 absent, -1 unknown),
    augmented at each access.
    """

    def __init__(self, data: TrainingData) -> None:
        # keeps no reference to data: its prompter may hold a network, which loader processes
        # cannot receive
        resize = LongSide(*data.resize)
        super().__init__(data.index, data.names, resize, data.crop, data.mean, colors=data.colors)

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        name = self.names[number]
        image = self.augment(as_image(self.index.image(name)))
        return image, torch.from_numpy(self.index.target(name))


def classification_loss(logits: Tensor, tags: Tensor) -> Tensor:
    """Return the multi-label soft margin of logits [B,C], the mean over images and classes, with
    tags [B,C]: 1 present, 0 absent, -1 unknown.

    Unknown classes count 0, so that every known tag weighs the same, however many its image has.
    """
    known = (tags >= 0).to(tags)
    return F.multilabel_soft_margin_loss(logits, present(tags), weight=known)


def present(tags: Tensor) -> Tensor:
    """Return 1 for the classes that are surely in the image, 0 for absent and unknown ones."""
    return tags.clamp(min=0)


def normalize(maps: Tensor) -> Tensor:
    """Divide each map of [...,h,w] by its own maximum; the result lies in [0,1]."""
    return maps / (maps.amax((-2, -1), keepdim=True) + EPSILON)


def tagged_loss(
    network: nn.Module, batch: tuple[Tensor, Tensor], step: TrainState
) -> Mapping[str, Tensor]:
    """Return the classification loss of a batch of TaggedCrops (samples [B,...], tags [B,C])."""
    samples, tags = batch
    return {"loss": classification_loss(network(samples), tags)}


class Classifier(nn.Module):
    """A method's network, and how it is trained.

    Args:
        classes: Number of classes.
        backbone: Network of the features; its stride is that of the class maps.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    """Options of the method that shape the network (further arguments of it, stored with its
    weights); all others are the loss's.
    """

    def __init__(self, classes: int, backbone: Backbone, **options: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: nn.Module = nn.Conv2d(backbone.channels[-1], classes, 1, bias=False)

    @staticmethod
    def dataset(data: TrainingData) -> TaggedCrops:
        """Return the training samples of the method."""
        return TaggedCrops(data)

    @staticmethod
    def loss_fn(data: TrainingData, *args: Any, **options: Any) -> LossFn:
        """Return the loss of a batch of the method's samples: here, of the classification alone."""
        return tagged_loss

    def new_parameters(self) -> list[nn.Parameter]:
        """Return the parameters without pretrained values: all but the backbone's."""
        return [p for name, p in self.named_parameters() if not name.startswith("backbone.")]

    def features(self, normalized: Tensor) -> Tensor:
        """Return the coarsest features [B,D,h,w] of normalized images [B,3,H,W]."""
        return self.backbone(normalized)[-1]

    def maps(self, normalized: Tensor, tags: Tensor) -> Tensor:
        """Return class maps [B,C,h,w] of normalized images [B,3,H,W], without ReLU.

        tags: 0/1 [B,C], the classes in each image, for methods whose maps depend on them.
        """
        return self.head(self.features(normalized))

    def merge_flipped(self, maps: Tensor, flipped: Tensor) -> Tensor:
        """Merge the rectified maps of an image and of its flipped image: here, add them."""
        return maps + flipped
