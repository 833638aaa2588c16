"""Sections `classifier` to `labels`: from image-level labels to pseudo-labels."""

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


class Cam(Section):
    """Plain CAM classifier, without options."""


class Seenet(Section):
    """Self-Erasing Network (Hou et al., NeurIPS 2018)."""

    depth: Annotated[int, Field(ge=0)]
    """3x3 convolutions of each head before its 1x1 one (2 in the paper; 0 for a short training)."""
    width: Count
    """Channels of the 3x3 convolutions (512 in the paper)."""
    erase: Annotated[float, Field(gt=0)]
    """Fraction of the maximum attention above which branch B erases (0.7 in the paper); above 1
    never.
    """
    background: Annotated[float, Field(ge=0)]
    """Fraction of the maximum attention below which branch B negates (0.05 in the paper); 0 never.
    """
    fusion: Literal["sum", "max"]
    """Sum the maps of branches A and B, or take the maximum of each over its own maximum (paper).
    """
    warmup: Fraction
    """Fraction of training in which branches B and C leave the features alone (0 in the paper; 1:
    throughout).
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
    """Final weight of the reconstruction loss (4 in the paper)."""
    ramp: Fraction
    """Fraction of training over which that weight rises from 0 (0.5 in the paper)."""
    level: Literal["cam", "feature"]
    """What must agree: the class maps' logits (default of the published code), or rectified maps,
    each over its maximum (a switch of it).
    """
    margin: Annotated[int, Field(ge=0)]
    """Cells at stride 16 on both sides of a seam that do not count (0 in the paper)."""
    reduction: Literal["present", "all"]
    """Average the reconstruction loss over the classes present in an image, or over all classes,
    absent ones counting 0 (published code).
    """


class S2c(Section):
    """From SAM to CAMs (Kweon and Yoon, CVPR 2024)."""

    features: Count
    """Channels of the contrasted features (256 in the published code)."""
    ssc: bool
    """Use SAM-segment contrasting."""
    ssc_weight: Positive
    """Weight of that loss (1 in the paper)."""
    temperature: Positive
    """Temperature that divides the cosine similarities (0.5 in the paper, 1 in its code)."""
    prototypes: Literal["learned", "detached"]
    """Prototypes learn as the features do that they are means of; or they are constants, means of
    normalized features, and that of the pixels in no segment is one more negative (published code).
    """
    stride: Annotated[int, Field(ge=1, le=16)]
    """Stride in pixels of the contrasted features (1 in the paper, over ten times as slow as 4)."""
    cpm: bool
    """Use CAM-based prompting: class maps learn from masks prompted at their own peaks."""
    mask: Literal["whole", "best"]
    """Which of SAM's three masks of a prompt: the third, of the whole object (published code), or
    that of highest predicted IoU; superpixels give the whole object alone.
    """
    cpm_weight: Positive
    """Weight of that loss (1 in the paper)."""
    warmup: Annotated[float, Field(ge=0)]
    """Epochs before prompting starts (2 in the published code)."""
    scales: Scales
    """Scales of the crop at which peaks are found (0.5, 1, 1.5, 2 in the published code; 1 alone
    is free).
    """
    peak: Fraction
    """Threshold on the normalized map for a local maximum to prompt (0.5 in the paper)."""
    distance: Count
    """Minimum distance of two peaks in pixels (20 in the published code)."""


class Frozen(Section):
    """A head on the stored features of a frozen backbone, without options; `resize`, `color`,
    `frozen_stages` and `batch_norm` do not apply.
    """


class Color(Section):
    """Random changes of a training image's colors."""

    jitter: tuple[Fraction, Fraction, Fraction, Annotated[float, Field(ge=0, le=0.5)]]
    """Strengths of brightness, contrast, saturation and hue (0.4, 0.4, 0.4, 0.1 in S2C)."""
    probability: Fraction
    """Probability that an image is jittered (0.8 in S2C); 0 for never."""
    grayscale: Fraction
    """Probability that an image is turned to gray (0.02 in S2C); 0 for never."""


class Classifier(Section):
    """Stage classifier."""

    method: Literal["cam", "seenet", "puzzlecam", "s2c", "frozen"]
    """Method that trains the classifier."""
    backbone: Backbone
    stride: Literal[8, 16]
    """Pixels per cell of the class maps (16 in IRN and Puzzle-CAM, 8 in S2C, where a step takes
    about four times the memory); VGG16 only has 16, and of Swin maps are interpolated.
    """
    dilated: bool
    """Dilate the stages whose stride is removed, so that filters see what they were pretrained on
    (Puzzle-CAM with a ResNeSt, S2C), or not, so that they see less (IRN).
    """
    frozen_stages: Annotated[int, Field(ge=0, le=5)]
    """Frozen backbone stages, counting the stem (3 in IRN: conv1, layer1, layer2 of ResNet-50)."""
    batch_norm: Literal["frozen", "fixed", "learned"]
    """Batch norm with pretrained statistics, scale and shift (S2C), with pretrained statistics
    alone (IRN), or with those of the batch (Puzzle-CAM).
    """
    epochs: Positive
    """Passes over the training images."""
    batch: Count
    """Images per step, over all ranks."""
    resize: Sides
    """Range of the longer side in pixels, drawn uniformly (320 to 640 in IRN)."""
    crop: Crop
    """Side of the square training crop in pixels (512 in IRN)."""
    color: Color
    optimizer: Optimizer
    cam: Cam
    seenet: Seenet
    puzzlecam: Puzzlecam
    s2c: S2c
    frozen: Frozen


class Cams(Section):
    """Stage cams."""

    scales: Scales
    """Image scales over which maps are summed (1.0, 0.5, 1.5, 2.0 in IRN)."""
    flip: bool
    """Add the maps of the flipped image."""


class Hints(Section):
    """Stage hints, and what others make of its artifact."""

    trust: Fraction
    """Factor of the scores of other models' masks and boxes against the class maps: 1 takes them as
    they are, 0 leaves them out. What a person says holds in any case.
    """
    weight: Annotated[float, Field(ge=1, le=100)]
    """Weight of a pixel that a person labeled in the losses of semantic and instance, against 1 of
    others; Mask R-CNN weighs none.
    """


class SeedsCrf(Crf):
    """Dense CRF of label maps instead of probabilities."""

    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Unary probability of a pixel's initial label (0.7 in IRN)."""


class Seeds(Section):
    """Stage seeds."""

    foreground: Fraction
    """CAM value above which a pixel is confident foreground (0.30 in IRN)."""
    background: Fraction
    """CAM value below which a pixel is confident background (0.05 in IRN)."""
    crf: SeedsCrf

    @model_validator(mode="after")
    def _ordered(self) -> "Seeds":
        if self.background > self.foreground:
            raise ValueError(
                f"background ({self.background}) must not exceed foreground ({self.foreground})"
            )
        return self


class Irnet(Section):
    """Stage irnet."""

    backbone: Backbone
    epochs: Positive
    """Passes over the training images (3 in IRN)."""
    batch: Count
    """Images per step, over all ranks (32 in IRN)."""
    scale: Scale
    """Range of the random scale (0.5 to 1.5 in IRN)."""
    crop: Crop
    """Side of the square training crop in pixels (512 in IRN)."""
    radius: Annotated[int, Field(ge=2, le=32)]
    """Radius in stride-4 cells within which pairs are compared (10 in IRN)."""
    optimizer: Optimizer


class Fields(Section):
    """Stage fields."""

    pad: Literal["canvas", "tight"]
    """Pad images to the side of IRNet's training crop before the network, as in IRN's code, where
    larger ones lose what is beyond it (here nothing), or only to a multiple of 16; group
    normalization sees the padding.
    """
    flip: bool
    """Average the boundary logits with those of the flipped image."""


class FeatureWalk(Section):
    """The walk on the similarity of features."""

    beta: Positive
    """Exponent that sharpens similarities."""
    steps: Annotated[int, Field(ge=0, le=64)]
    """Length of the walk, any two cells being neighbors."""


class Walk(Section):
    """Stage walk."""

    affinity: Literal["boundary", "features"]
    """What joins two cells: no boundary of IRNet's between them, or similar features of the
    classifier's backbone as it was pretrained; then irnet and fields do nothing, only `features`
    below applies, and instances are connected parts.
    """
    radius: Annotated[int, Field(ge=2, le=16)]
    """Radius in stride-4 cells within which pixels are connected (5 in IRN)."""
    beta: Positive
    """Exponent that sharpens the affinities (10 in IRN)."""
    steps: Annotated[int, Field(ge=0, le=65536)]
    """Length of the walk (2^8 = 256 in IRN)."""
    iterations: Annotated[int, Field(ge=0)]
    """Refinement iterations of the centroids (300 in IRN)."""
    centroid_radius: Positive
    """Displacements shorter than this many cells mark a centroid (2.5 in IRN)."""
    background: Positive
    """Exponent of the background's seeds, 1 minus the highest class map (16 in AffinityNet); the
    higher, the less background. Matters with `labels.normalize: background`.
    """
    features: FeatureWalk


class Labels(Section):
    """Stage labels."""

    background: Fraction
    """Background score against the normalized walk result (0.25 in IRN); with `normalize:
    background` 0.5 is the argmax over class and background.
    """
    normalize: Literal["background", "class", "image"]
    """Divide the walk result by each class's maximum, or by that over all classes (IRN), or by
    the first and then by its sum with the walked background.
    """
    min_area: Fraction
    """Instances below this fraction of the image are dropped (0.01 in IRN)."""
    boundary_threshold: Fraction
    """Instances are split at boundaries of at least this strength; 1 for never, as in IRN."""
    vote: Literal["none", "segments"]
    """Give each segment the label of the majority of its pixels."""
    refine: Literal["none", "prompts"]
    """Let each instance prompt the segmenter, with its box and points inside and outside, and take
    the mask that this gives.
    """
    agreement: Annotated[float, Field(ge=0.5, le=1)]
    """Fraction of a segment's pixels that must agree for the others to follow, and IoU of an
    instance with a prompted mask from which on it is taken.
    """
