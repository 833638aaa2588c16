"""Sections `semantic` to `report`: the final models, their predictions and scores."""

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
    targets: Literal["hard", "soft"]
    """Learn the pseudo-labels, or the walk's maps against `labels.background` as probabilities of
    the labels (DS-CRF), whatever `labels.vote` says; ground truth is hard.
    """
    boundary: Annotated[float, Field(ge=0)]
    """Weight of a term that draws neighbors' predictions together except along the borders of
    segments (DS-CRF); 0 for none.
    """
    backbone: Backbone
    epochs: Positive
    """Passes over the training images."""
    batch: Annotated[int, Field(ge=2)]
    """Images per step, over all ranks; at least 2: DeepLab's image pooling is batch-normalized."""
    scale: Scale
    """Range of the random scale."""
    crop: Crop
    """Side of the square training crop in pixels."""
    optimizer: Optimizer


class NoInstances(Section):
    """No instance model, without options."""


class SparseinstLoss(Section):
    """Weights of SparseInst's loss terms."""

    classification: Positive
    """Focal loss of the classes (2 in the paper)."""
    dice: Positive
    """Dice loss of the masks (2 in the paper)."""
    mask: Positive
    """Cross-entropy of the masks' pixels (2 in the paper, 5 in the published code)."""
    objectness: Positive
    """Cross-entropy of the predicted IoU (1 in the paper)."""
    semantic: Positive
    """Cross-entropy of the auxiliary semantic head (see `semantic`)."""


class Sparseinst(Section):
    """SparseInst (Cheng et al., CVPR 2022)."""

    width: Annotated[int, Field(ge=4, multiple_of=4)]
    """Channels of encoder and decoder (256 in the paper)."""
    queries: Count
    """Maximum number of instances per image (100 in the paper)."""
    groups: Count
    """Groups of instance activation maps (4 in the paper); 1 is the paper's base decoder. Must
    divide the width.
    """
    normalization: Literal["sigmoid", "softmax"]
    """Normalization of the activation maps: sigmoid (paper) or softmax (published later)."""
    normalize_features: bool
    """Normalize the backbone's features to mean 0 and variance 1 first (not in the published code,
    whose ResNet features are small).
    """
    semantic: bool
    """Train the encoder with an auxiliary semantic head (not in the paper; YOLACT's, for short
    schedules), which votes on the classes of the instances.
    """
    target_resize: Literal["area", "bilinear"]
    """Downsampling of target masks to stride 4: area, or bilinear as published, which loses small
    objects.
    """
    weight_by_score: bool
    """Weight instances by the scores of their pseudo-labels."""
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
    """Proposals per image that the heads are trained on (512 in the paper); they dominate the time
    of a step on a CPU.
    """


class Instance(Section):
    """Stage instance."""

    method: Literal["none", "sparseinst", "maskrcnn"]
    """The final instance model; with `none`, predictions are semantic only."""
    supervision: Literal["labels", "truth"]
    """Instance pseudo-labels, or the ground truth for the fully supervised upper bound."""
    min_score: Fraction
    """Pixels of pseudo-instances of a lower score are ignored in training."""
    pretraining: Literal["none", "classifier", "semantic"]
    """Initialize the backbone from ImageNet only, from the classifier or from the semantic model
    (the same network).
    """
    backbone: Backbone
    frozen_stages: Annotated[int, Field(ge=0)]
    """First stages of the backbone that do not learn, stem included (0 in SparseInst)."""
    batch_norm: Literal["fixed", "frozen"]
    """Batch norm with pretrained statistics, whose scale and shift learn (`fixed`) or do not
    (`frozen`, as in SparseInst and Mask R-CNN).
    """
    epochs: Positive
    """Passes over the training images (SparseInst: 147 over COCO)."""
    batch: Count
    """Images per step, over all ranks (SparseInst: 64)."""
    resize: Sides
    """Range of the shorter side in pixels, drawn uniformly (416 to 640 in SparseInst)."""
    resize_step: Count
    """Step in pixels of the sides that are drawn (32 in SparseInst)."""
    longest: Annotated[int, Field(ge=0)]
    """Limit of the longer side in pixels (853 in SparseInst); 0 for none."""
    crop: Crop
    """Side of the square training crop in pixels; from `longest` on nothing is cut off."""
    optimizer: Optimizer
    none: NoInstances
    sparseinst: Sparseinst
    maskrcnn: Maskrcnn


class InstancePredictions(Section):
    """Inference of the instance model."""

    sides: Sides
    """Shorter side and maximum longer side in pixels (640, 853 in SparseInst)."""
    score: Fraction
    """Minimum score of an instance (0.005 in SparseInst's code, before rescoring by masks)."""


class Predictions(Section):
    """Stage predictions."""

    instances: InstancePredictions
    scales: Scales
    """Image scales over which class probabilities are averaged."""
    flip: bool
    """Average with the flipped image."""
    crf: Crf
    """Refinement of the probabilities; `iterations: 0` for none."""


class Scores(Section):
    """Stage scores."""

    background: Fraction
    """Fixed CAM threshold, scored besides the best one (0.15 in IRN's evaluation)."""


class Report(Section):
    """Stage report."""

    images: Annotated[int, Field(ge=0)]
    """Number of images on the sheets."""
    worst: Annotated[int, Field(ge=0)]
    """Number of images with the lowest scores to show."""
