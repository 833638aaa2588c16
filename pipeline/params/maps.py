"""Sections `classifier`, `cams` and `seeds`: from tags to class activation maps and confident
pixels.
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
    Scales,
    Section,
    Sides,
)


class Cam(Section):
    """The plain classifier has no options of its own."""


class Seenet(Section):
    """Self-Erasing Network (Hou et al., NeurIPS 2018)."""

    width: Count
    """Channels of the two 3x3 convolutions of each branch's head (512 in the paper)."""
    erase: Annotated[float, Field(gt=0)]
    """Share of the attention's maximum from which branch B erases (0.7 in the paper); above 1
    never.
    """
    background: Annotated[float, Field(ge=0)]
    """Share of the attention's maximum below which branch B reverses the sign (0.05 in the paper);
    0 never.
    """

    @model_validator(mode="after")
    def _ordered(self) -> "Seenet":
        if self.background > self.erase:
            raise ValueError(f"background ({self.background}) must not exceed erase ({self.erase})")
        return self


class Puzzlecam(Section):
    """Puzzle-CAM (Jo and Yu, ICIP 2021)."""

    grid: tuple[Count, Count]
    """Rows and columns of tiles (2, 2 in the paper); the crop must divide into them."""
    alpha: Annotated[float, Field(ge=0)]
    """Weight of the reconstruction loss once it is fully in (4 in the paper)."""
    ramp: Fraction
    """Share of the training over which that weight rises from 0 (0.5 in the paper)."""
    reduction: Literal["present", "all"]
    """Mean of the reconstruction loss over the classes of each image, or over all classes, absent
    ones counting 0 (published).
    """


class S2c(Section):
    """From SAM to CAMs (Kweon and Yoon, CVPR 2024)."""

    features: Count
    """Channels of the features that are contrasted (256 in the published code)."""
    ssc: bool
    """Whether features are contrasted by segments."""
    ssc_weight: Positive
    """Weight of that loss (1 in the paper)."""
    temperature: Positive
    """Cosines are divided by it (0.5 in the paper)."""
    stride: Annotated[int, Field(ge=1, le=16)]
    """Pixels between two contrasted places (1 in the paper, which takes over ten times as long as
    4).
    """
    cpm: bool
    """Whether class maps learn from masks prompted at their own peaks."""
    cpm_weight: Positive
    """Weight of that loss (1 in the paper)."""
    warmup: Annotated[float, Field(ge=0)]
    """Epochs without prompts (2 in the published code)."""
    scales: Scales
    """Scales of the crop whose maps are searched for peaks (0.5, 1, 1.5, 2 in the published code; 1
    alone costs nothing).
    """
    peak: Fraction
    """Value of the normalized map above which a local maximum prompts (0.5 in the paper)."""
    distance: Count
    """Pixels between two peaks at least (20 in the published code)."""


class Classifier(Section):
    """Stage classifier."""

    method: Literal["cam", "seenet", "puzzlecam", "s2c"]
    """How the classifier is trained."""
    backbone: Backbone
    frozen_stages: Annotated[int, Field(ge=0, le=5)]
    """Backbone feature stages that never learn, the stem included (3 in IRN: conv1, layer1, layer2
    of ResNet-50).
    """
    batch_norm: Literal["fixed", "learned"]
    """Batch normalization by the pretrained statistics (IRN, S2C), or by those of the batch
    (Puzzle-CAM).
    """
    epochs: Positive
    """Passes over the training images."""
    batch: Count
    """Images per step, over all ranks."""
    resize: Sides
    """Range of the longer side in pixels, drawn uniformly (320 to 640 in IRN)."""
    crop: Crop
    """Side of the square training crop in pixels (512 in IRN)."""
    optimizer: Optimizer
    cam: Cam
    seenet: Seenet
    puzzlecam: Puzzlecam
    s2c: S2c


class Cams(Section):
    """Stage cams."""

    scales: Scales
    """Image scales whose maps are summed (1.0, 0.5, 1.5, 2.0 in IRN)."""
    flip: bool
    """Whether the flipped image is added."""


class Seeds(Section):
    """Stage seeds."""

    foreground: Fraction
    """CAM value above which a pixel is confident foreground (0.30 in IRN)."""
    background: Fraction
    """CAM value below which a pixel is confident background (0.05 in IRN)."""
    crf: Crf

    @model_validator(mode="after")
    def _ordered(self) -> "Seeds":
        if self.background > self.foreground:
            raise ValueError(
                f"background ({self.background}) must not exceed foreground ({self.foreground})"
            )
        return self
