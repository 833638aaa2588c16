"""SparseInst (Cheng et al., CVPR 2022): instances as sparse activation maps, one mask per query,
without boxes and without NMS.

The model and its way from outputs to instances are here, its layers in `network`, its training loss
in `losses`. Which queries count, and their scores:

    s = sqrt(sigma(p) sigma(o)),   s' = s * mean of q over the cells with q > 0.45,   q = sigma(m)

for class logits p, objectness o and mask logits m. s is the paper's score (section 3.3); the
published code selects by s and then reports s'. An image without instances is a normal result.

With `semantic`, which is not in the paper, the cells under a mask vote on its class: sigma(p)
becomes sqrt(sigma(p) v), in training too, where v is the softmax of the mean class logits, without
background, of the cells with q > 0.45.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.core.trainer import LossFn
from pipeline.instances.base import Detections, InstanceModel, resize_to_sides
from pipeline.instances.sparseinst.losses import training_loss
from pipeline.instances.sparseinst.network import (
    MASK_STRIDE,
    MULTIPLE,
    STRIDES,
    Decoder,
    Encoder,
    Outputs,
    at_least_float32,
)
from pipeline.nets.backbones import Backbone, micro_batches, pad_to_multiple

MASK_THRESHOLD = 0.45
"""q above which a pixel belongs to a mask, as published."""
EPSILON = 1e-6
"""Added to the number of cells above the threshold, as published; keeps votes of nobody finite."""
VALUES_AT_ONCE = 2**24
"""Interpolated float values in memory at once; one mask at least."""


class TrainingOutputs(NamedTuple):
    """What the loss takes: the outputs after the vote, and logits [B,1+K,H/8,W/8] of background and
    classes, or None for networks without them.
    """

    outputs: Outputs
    semantic: Tensor | None


class SparseInst(InstanceModel):
    """SparseInst for K = `classes` classes.

    The published network has neither `normalize_features` nor `semantic`. Without the former,
    initial mask logits are about 1 on a ResNet but about 350 on EfficientNet-Lite0, whose maps are
    ten times as large, which then learns little in a few hundred steps. Without the latter, classes
    are learned only through the pooled features, long after the masks.

    Args:
        classes: K, without background.
        backbone: name of the timm backbone, which must have maps at strides 8, 16 and 32.
        weights: see Backbone.
        width: D, channels of encoder and decoder (256 in the paper).
        queries, groups, normalization: see InstanceBranch.
        normalize_features: whether the backbone's maps are first brought to mean 0 and variance 1.
        semantic: whether a layer on the encoder's features learns the class of each cell as well
            (YOLACT, Bolya et al., ICCV 2019, section 3.4), and votes on the classes of the queries.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = (
        "width",
        "queries",
        "groups",
        "normalization",
        "normalize_features",
        "semantic",
    )

    def __init__(
        self,
        classes: int,
        backbone: str,
        weights: str = "none",
        *,
        width: int = 256,
        queries: int = 100,
        groups: int = 4,
        normalization: str = "sigmoid",
        normalize_features: bool = False,
        semantic: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, weights, STRIDES)
        channels = self.backbone.channels
        self.norms = nn.ModuleList(
            nn.GroupNorm(1, number) if normalize_features else nn.Identity() for number in channels
        )
        self.encoder = Encoder(channels, width)
        shape = {"queries": queries, "groups": groups, "normalization": normalization}
        self.decoder = Decoder(width, classes, **shape)
        self.semantic = nn.Conv2d(width, 1 + classes, 1) if semantic else None
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Outputs | TrainingOutputs:
        """Return Outputs, in training mode TrainingOutputs, of images [B,3,H,W] in 0..255 of any
        size; the masks span the images as `prepare` pads them.
        """
        found = self.decode(self.prepare(images))
        return found if self.training else found.outputs

    def prepare(self, images: Tensor) -> Tensor:
        """Normalize images [B,3,H,W] in 0..255, then pad them with 0 at the right and bottom to
        multiples of 32.
        """
        return pad_to_multiple(self.backbone.normalize(images), MULTIPLE)

    def encode(self, prepared: Tensor) -> Tensor:
        """Return the encoder's features [B,D,H/8,W/8] of prepared images [B,3,H,W]."""
        inputs = prepared.contiguous(memory_format=torch.channels_last)
        maps = zip(self.norms, self.backbone(inputs), strict=True)
        encoded: Tensor = self.encoder([norm(features) for norm, features in maps])
        return encoded

    def decode(self, prepared: Tensor) -> TrainingOutputs:
        """Return the outputs of prepared images [B,3,H,W], with masks [B,N,H/4,W/4], after the
        vote, through which the semantic layer learns nothing: the queries learn what it leaves
        open.
        """
        features = self.encode(prepared)
        outputs: Outputs = self.decoder(features)
        if self.semantic is None:
            return TrainingOutputs(outputs, None)
        semantic: Tensor = self.semantic(features)
        return TrainingOutputs(voted(outputs, semantic.detach()), semantic)

    @staticmethod
    def loss_fn(**options: Any) -> LossFn:
        """Return `training_loss` with its options."""
        return partial(training_loss, **options)

    @torch.inference_mode()
    def predict(
        self, images: Sequence[Tensor] | Tensor, *, score: float, sides: Sequence[int] | None = None
    ) -> list[Detections]:
        """Detect instances, in the order of their queries; see InstanceModel. Images padded to one
        size go through the network together.
        """
        resized = [resize_to_sides(image[None], sides) for image in images]
        prepared = [self.prepare(image) for image in resized]
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, image in enumerate(prepared):
            groups[tuple(image.shape)].append(number)
        found: dict[int, Detections] = {}
        for numbers in groups.values():
            batches = micro_batches(torch.cat([prepared[number] for number in numbers]))
            parts = [self.decode(batch).outputs for batch in batches]
            joined = Outputs(*map(torch.cat, zip(*parts, strict=True)))
            for number, *outputs in zip(numbers, *joined, strict=True):
                inner, size = resized[number].shape[2:], images[number].shape[1:]
                found[number] = detections(Outputs(*outputs), inner, size, score)
        return [found[number] for number in range(len(images))]


def voted(outputs: Outputs, semantic: Tensor) -> Outputs:
    """Return the outputs of a batch after the cells under the masks voted on the classes: logits
    [B,N,K] of sqrt(sigma(p) v), at least float32; v is uniform where a mask has no cell.

    semantic: logits [B,1+K,h,w] of background and classes at half the size of the masks.
    """
    q = at_least_float32(outputs.masks).sigmoid()
    cells = F.avg_pool2d(q * (q > MASK_THRESHOLD), 2).flatten(2)
    cells = cells / cells.sum(2, keepdim=True).clamp(min=EPSILON)
    means = cells @ at_least_float32(semantic[:, 1:]).flatten(2).transpose(1, 2)
    queries = F.logsigmoid(at_least_float32(outputs.logits))
    both = (queries + at_least_float32(means).log_softmax(2)) / 2
    # the logit of exp(both), which stays finite where both are sure
    return outputs._replace(logits=both - torch.log(-torch.expm1(both.clamp(max=-EPSILON))))


class Queries(NamedTuple):
    """The selected queries [M], with mask probabilities [M,h,w], classes [M] and scores s' [M]."""

    queries: Tensor
    cells: Tensor
    classes: Tensor
    scores: Tensor


@torch.no_grad()
def detections(
    outputs: Outputs, inner: Sequence[int], size: Sequence[int], score: float
) -> Detections:
    """Return the instances of one image in the order of their queries, without empty masks; at
    least in float32.

    Args:
        outputs: logits [N,K], masks [N,h,w], objectness [N].
        inner: (H,W) of the image at the network's input, before padding.
        size: (H,W) of the image itself, and of the masks returned.
        score: s above which a query is kept.
    """
    with torch.autocast(outputs.masks.device.type, enabled=False):
        _, cells, classes, scores = select_queries(outputs, score)
        masks = upsample_masks(cells, inner, size)
    found = masks.flatten(1).any(1)
    return Detections(masks[found], classes[found], scores[found])


def select_queries(outputs: Outputs, score: float | Tensor) -> Queries:
    """Select the queries (logits [N,K], masks [N,h,w], objectness [N]) whose s exceeds `score`."""
    strongest, classes = at_least_float32(outputs.logits).max(1)
    scores = (strongest.sigmoid() * at_least_float32(outputs.objectness).sigmoid()).sqrt()
    queries = (scores > score).nonzero()[:, 0]
    cells = at_least_float32(outputs.masks[queries]).sigmoid_()
    above = cells > MASK_THRESHOLD
    sums, counts = (cells * above).sum((1, 2)), above.sum((1, 2)) + EPSILON
    return Queries(queries, cells, classes[queries], scores[queries] * sums / counts)


def upsample_masks(cells: Tensor, inner: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return masks bool [N,H,W]: where the probabilities, interpolated from the cells straight to
    the image, exceed the threshold.

    The published code interpolates twice, by way of the network's input, which differs at the edges
    alone. A few masks are interpolated at a time, so that memory stays bounded.

    Args:
        cells: probabilities [N,h,w] at stride 4 of the network's padded input.
        inner: (H,W) of the image at the network's input, without padding.
        size: (H,W) of the image itself.
    """
    height, width = size
    scale = [MASK_STRIDE * side / inside for side, inside in zip(size, inner, strict=True)]
    masks = torch.zeros(len(cells), height, width, dtype=torch.bool, device=cells.device)
    # One cell is repeated at the end: rounding must not leave the result a pixel short.
    padded = F.pad(cells[:, None], (0, 1, 0, 1), mode="replicate")
    values = round(padded[:1].numel() * scale[0] * scale[1])
    step = max(1, VALUES_AT_ONCE // max(1, values))
    for part, mask in zip(padded.split(step), masks.split(step), strict=True):
        full = F.interpolate(part, scale_factor=scale, mode="bilinear", align_corners=False)
        mask.copy_(full[:, 0, :height, :width] > MASK_THRESHOLD)
    return masks
