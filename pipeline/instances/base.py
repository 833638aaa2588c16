"""What all instance models share: the samples they learn from, and the instances they detect.

Stage instance trains on InstanceCrops, stage predictions writes Detections.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.artifacts import IGNORE
from pipeline.data.augmentation import Crops
from pipeline.nets.backbones import resize_by

MAX_INSTANCES = 100
"""M, largest number of instances per crop; ids are bytes, so at most 254."""
OUTSIDE = -1
"""Id of ignored pixels until a crop's instances are renumbered."""


class Detections(NamedTuple):
    """Instances detected in an image.

    masks: bool [N,H,W], may overlap; classes: int64 [N]; scores: float [N] in [0,1]; N may be 0.
    """

    masks: Tensor
    classes: Tensor
    scores: Tensor


class InstanceModel(nn.Module, ABC):
    """An instance segmentation network that can be trained and applied.

    The constructor takes the number of classes, the backbone's name, its weights (see Backbone) and
    the options named in OPTIONS, which are stored with the trained weights.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    """Parameters of the method that shape the network; all others go to `loss_fn`."""

    def new_parameters(self) -> list[nn.Parameter]:
        """Return the parameters without pretrained values: all but the backbone's."""
        backbone: Any = self.backbone
        pretrained = set(backbone.parameters())
        return [parameter for parameter in self.parameters() if parameter not in pretrained]

    @staticmethod
    @abstractmethod
    def loss_fn(*args: Any, **options: Any) -> Callable[..., Mapping[str, Tensor]]:
        """Return the training loss: (network, batch of InstanceCrops, step) to terms, with their
        sum as `loss`.
        """

    @abstractmethod
    def predict(
        self, images: Sequence[Tensor] | Tensor, *, score: float, sides: Sequence[int] | None = None
    ) -> list[Detections]:
        """Detect instances in images, each independently of the others.

        Args:
            images: [3,H,W] each in 0..255, of any sizes.
            score: lowest score of an instance.
            sides: shorter side in pixels at which the network sees an image, and the limit of the
                longer one; None for the image's own size.
        """


def resize_to_sides(images: Tensor, sides: Sequence[int] | None) -> Tensor:
    """Resize images [B,3,H,W] in 0..255 to a shorter side of sides[0] pixels, or less where the
    longer one would exceed sides[1]; None keeps their size.
    """
    if sides is None:
        return images
    low, high = sorted(images.shape[2:])
    return resize_by(images.float(), min(sides[0] / low, sides[1] / high))


class TrainingInstances(NamedTuple):
    """Instances of an image to learn from.

    ids: integer [H,W], 0 none, 1..N, OUTSIDE for pixels left out of the loss; classes: [N] from 0;
    weights: [N] in [0,1].
    """

    ids: np.ndarray
    classes: np.ndarray
    weights: np.ndarray


def select_instances(
    ids: np.ndarray,
    classes: np.ndarray,
    weights: np.ndarray,
    semantic: np.ndarray,
    kept: np.ndarray,
) -> TrainingInstances:
    """Keep the selected instances; pixels of all other objects are ignored.

    Args:
        ids: [H,W], 0 none, 1..N.
        classes: [N] from 0.
        weights: [N] in [0,1].
        semantic: label map [H,W]. Pixels ignored there, or of a class but in no kept instance, are
            ignored: they are not background.
        kept: bool [N], the selection.
    """
    inside = np.concatenate([[False], kept])[ids]
    others = np.where((semantic > 0) | (ids > 0), OUTSIDE, 0)
    return TrainingInstances(np.where(inside, ids, others).astype(np.int32), classes, weights)


@dataclass(eq=False)
class InstanceCrops(Crops):
    """Training samples of equal shapes, augmented again at each access; a batch is their stack.

    A sample is image uint8 [3,S,S]; ids uint8 [S,S], 0 none, 1..M, 255 ignored or outside the
    image; classes uint8 [M], 255 for unused ids; weights float32 [M]; and with an emphasis weights
    float32 [S,S] of pixels. Instances are renumbered per crop; of more than M the smallest are
    ignored.

    Attributes:
        instances: returns the instances of an id.
    """

    OUTSIDE: ClassVar[int] = OUTSIDE
    instances: Callable[[str], TrainingInstances]

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        name = self.names[number]
        instances = self.instances(name)
        ids = instances.ids.astype(np.int32)[None]
        image, crop, weights = self.augmented(name, ids)
        return image, *renumber(crop[0], instances), *weights


def renumber(
    ids: Tensor, instances: TrainingInstances, max_instances: int = MAX_INSTANCES
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ids, classes and weights of a sample of InstanceCrops, from a crop's original ids
    int32 [S,S] with OUTSIDE.
    """
    present, positions, areas = ids.unique(return_inverse=True, return_counts=True)
    areas[present <= 0] = 0
    count = min(max_instances, int((present > 0).sum()))
    kept = areas.argsort(descending=True, stable=True)[:count].sort().values
    numbers = torch.full((len(present),), IGNORE, dtype=torch.uint8)
    numbers[present == 0] = 0
    numbers[kept] = torch.arange(1, len(kept) + 1, dtype=torch.uint8)
    rows = present[kept].long() - 1
    classes = torch.full((max_instances,), IGNORE, dtype=torch.uint8)
    weights = torch.zeros(max_instances)
    classes[: len(kept)] = torch.as_tensor(instances.classes)[rows].byte()
    weights[: len(kept)] = torch.as_tensor(instances.weights)[rows].float()
    return numbers[positions], classes, weights
