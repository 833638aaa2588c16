"""Sections `irnet`, `fields`, `walk` and `labels`: from confident pixels to whole objects and instances."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.params.section import (
    Backbone,
    Count,
    Crop,
    Fraction,
    Optimizer,
    Positive,
    Scale,
    Section,
)


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
    """Pairs closer than this many stride-4 cells are compared (10 in IRN)."""
    optimizer: Optimizer


class Fields(Section):
    """Stage fields."""

    flip: bool
    """Whether the boundary logits are averaged with those of the flipped image."""


class Walk(Section):
    """Stage walk."""

    radius: Annotated[int, Field(ge=2, le=16)]
    """Pixels closer than this many stride-4 cells are connected (5 in IRN)."""
    beta: Positive
    """Exponent that sharpens the affinities (10 in IRN)."""
    steps: Annotated[int, Field(ge=0, le=65536)]
    """Length of the walk (2^8 = 256 in IRN)."""
    iterations: Annotated[int, Field(ge=0)]
    """Refinement steps of the centroids (300 in IRN)."""
    centroid_radius: Positive
    """Displacements shorter than this many cells mark a centroid (2.5 in IRN)."""


class Labels(Section):
    """Stage labels."""

    background: Fraction
    """Score of the background against the normalized walk result (0.25 in IRN)."""
    normalize: Literal["class", "image"]
    """Maximum that divides the walk result: each class's own, or the image's over all classes
    (IRN).
    """
    min_area: Fraction
    """Instances below this share of the image are dropped (0.01 in IRN)."""
    boundary_threshold: Fraction
    """Instances are split where a boundary of this strength or more runs through them; 1 for never,
    as in IRN.
    """
    vote: Literal["none", "segments"]
    """Whether segments take the label of most of their pixels."""
    agreement: Annotated[float, Field(ge=0.5, le=1)]
    """Share of a segment's pixels that must agree before the others follow."""
