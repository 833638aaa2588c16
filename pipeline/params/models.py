"""Sections `semantic`, `instance`, `predictions`, `scores` and `report`: the final models and what
they are worth.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.params.section import (
    Backbone,
    Count,
    Crf,
    Crop,
    Fraction,
    Optimizer,
    Positive,
    Scale,
    Scales,
    Section,
    Sides,
)


class Semantic(Section):
    """Stage semantic."""

    supervision: Literal["labels", "truth"]
    """Pseudo-labels, or the ground truth for the fully supervised upper bound."""
    backbone: Backbone
    epochs: Positive
    """Passes over the training images."""
    batch: Annotated[int, Field(ge=2)]
    """Images per step, over all ranks; two at least, because DeepLab's image pooling normalizes
    over the batch.
    """
    scale: Scale
    """Range of the random scale."""
    crop: Crop
    """Side of the square training crop in pixels."""
    optimizer: Optimizer


class NoInstances(Section):
    """No instance model has no options."""


class SparseinstLoss(Section):
    """Weights of the terms of SparseInst's loss."""

    classification: Positive
    """Focal loss of the classes (2 in the paper)."""
    dice: Positive
    """Dice loss of the masks (2 in the paper)."""
    mask: Positive
    """Cross-entropy of the masks' pixels (2 in the paper, 5 in the published code)."""
    objectness: Positive
    """Cross-entropy of the predicted IoU (1 in the paper)."""
    semantic: Positive
    """Cross-entropy of the classes of cells, if they are learned beside (see `semantic`)."""


class Sparseinst(Section):
    """SparseInst (Cheng et al., CVPR 2022)."""

    width: Annotated[int, Field(ge=4, multiple_of=4)]
    """Channels of encoder and decoder (256 in the paper)."""
    queries: Count
    """Instances that can be found in an image (100 in the paper)."""
    groups: Count
    """Activation maps of each query (4 in the paper); must divide the width."""
    normalization: Literal["sigmoid", "softmax"]
    """How activation maps become weights of pixels: sigmoid as in the paper, or softmax (published
    later).
    """
    level: bool
    """Whether the backbone's maps are brought to mean 0 and variance 1 first; published without,
    for ResNets, whose maps are small.
    """
    semantic: bool
    """Whether the encoder learns the class of each cell beside, in training alone (not in the
    paper; YOLACT's, for short schedules).
    """
    targets: Literal["area", "bilinear"]
    """How masks are brought to a quarter of the size: true areas, or as published, which loses
    small objects.
    """
    weighted: bool
    """Whether instances count by the scores of their pseudo-labels."""
    loss: SparseinstLoss

    @model_validator(mode="after")
    def _divisible(self) -> "Sparseinst":
        if self.width % self.groups:
            raise ValueError(f"groups ({self.groups}) must divide width ({self.width})")
        return self


class Maskrcnn(Section):
    """Mask R-CNN (He et al., ICCV 2017), torchvision's."""

    channels: Count
    """Channels of the feature pyramid and of the mask head (256 in the paper)."""
    proposals: Count
    """Proposals of an image that the heads learn from in a step (512 in the paper); on a CPU they
    decide how long a step takes.
    """


class Instance(Section):
    """Stage instance."""

    method: Literal["none", "sparseinst", "maskrcnn"]
    """The final instance model; `none` trains none, and predictions hold semantic maps alone."""
    supervision: Literal["labels", "truth"]
    """Instance pseudo-labels, or the ground truth for the fully supervised upper bound."""
    min_score: Fraction
    """Pseudo-instances of a lower score are not learned from: their pixels do not count."""
    pretraining: Literal["none", "classifier"]
    """Whether to begin with the classifier's backbone, which can tell the classes apart already; it
    must be the same network.
    """
    backbone: Backbone
    epochs: Positive
    """Passes over the training images (SparseInst: 147 over COCO)."""
    batch: Count
    """Images per step, over all ranks (SparseInst: 64)."""
    resize: Sides
    """Range of the shorter side in pixels, drawn uniformly (416 to 640 in SparseInst)."""
    crop: Crop
    """Side of the square training crop in pixels."""
    optimizer: Optimizer
    none: NoInstances
    sparseinst: Sparseinst
    maskrcnn: Maskrcnn


class InstancePredictions(Section):
    """How the instance model looks at an image."""

    sides: Sides
    """Shorter side in pixels, and the longest that the other one may have (640, 853 in SparseInst).
    """
    score: Fraction
    """Instances below are left out (0.005 in SparseInst's code before its scores are lowered by the
    masks').
    """


class Predictions(Section):
    """Stage predictions."""

    instances: InstancePredictions
    scales: Scales
    """Image scales whose class probabilities are averaged."""
    flip: bool
    """Whether the flipped image is averaged in."""
    crf: Crf
    """Refinement of the probabilities; `iterations: 0` for none."""


class Scores(Section):
    """Stage scores."""

    background: Fraction
    """Fixed CAM threshold scored next to the best one (0.15 in IRN's evaluation)."""


class Report(Section):
    """Stage report."""

    images: Annotated[int, Field(ge=0)]
    """Images on the sheets."""
    worst: Annotated[int, Field(ge=0)]
    """Images with the lowest scores shown."""
