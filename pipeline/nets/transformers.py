"""Vision transformers as feature extractors: maps at the strides of a convolutional network, for
images of any size.

A plain transformer (ViT, DINOv2, DINOv3, CLIP, SigLIP) has one resolution, its patches'. Images are
resized so that a patch covers `output_stride` pixels, whatever its own size, and position
embeddings to the grid of patches. Evenly spaced blocks give the maps (DPT, Ranftl et al., ICCV
2021, section 3.1), each after the network's last normalization, and resizing gives them their
strides: the simple feature pyramid (ViTDet, Li et al., ECCV 2022, section 3) without its
deconvolutions, since every method here puts convolutions of its own on every map.

A hierarchical one (Swin) has strides 4 to 32. Its windows leave no stride to remove, so that maps
coarser than the output stride are interpolated.
"""

from collections.abc import Sequence
from typing import Any

import timm
from timm.models import FeatureInfo
from torch import Tensor, nn
from torch.nn import functional as F

FAMILIES: dict[str, dict[str, Any]] = {
    "vision_transformer": {"dynamic_img_size": True},
    "deit": {"dynamic_img_size": True},
    "eva": {"dynamic_img_size": True},
    "swin_transformer": {"strict_img_size": False},
    "swin_transformer_v2": {"strict_img_size": False},
}
"""timm's modules whose networks take images of any size, and the option for that."""
LEVELS = (4, 8, 16, 16)
"""Strides of a plain transformer's maps, none above the output stride, unless others are required.
"""


def any_size(name: str) -> dict[str, Any]:
    """Return the option that lets timm's `name` take images of any size; none for networks that are
    not of FAMILIES.
    """
    families = (f for f in FAMILIES if timm.models.is_model_in_modules(name, f))
    return FAMILIES.get(next(families, ""), {})


class TransformerFeatures(nn.Module):
    """A transformer that returns feature maps as timm's `features_only` networks do.

    Args:
        name: timm model of a family of FAMILIES.
        strides: Of the maps; None for those of all stages, none above `output_stride`.
        output_stride: Pixels that a patch covers in a plain transformer, and the largest stride.
        pretrained: Whether to load timm's weights from the hub.

    Raises:
        RuntimeError: A hierarchical network lacks one of the strides.
    """

    def __init__(
        self, name: str, strides: Sequence[int] | None, output_stride: int, pretrained: bool
    ) -> None:
        super().__init__()
        model: Any = timm.create_model(name, pretrained=pretrained, **any_size(name))
        infos = model.feature_info
        found = [info["reduction"] for info in infos]
        self.patch = self.cell = found[-1]
        if len(set(found)) == 1:
            self.cell = output_stride
            reductions = strides or [min(stride, output_stride) for stride in LEVELS]
            levels = [(n + 1) * len(found) // len(reductions) - 1 for n in range(len(reductions))]
        elif strides is None:
            reductions, levels = [min(r, output_stride) for r in found], list(range(len(found)))
        elif set(strides) <= set(found):
            reductions, levels = strides, [found.index(stride) for stride in strides]
        else:
            raise RuntimeError(f"it has strides {found}")
        self.indices = model.prune_intermediate_layers(levels, prune_norm=False, prune_head=True)
        self.model = model
        self.reductions = list(reductions)
        self.feature_info = FeatureInfo(
            [
                {**infos[level], "reduction": r, "module": f"model.{infos[level]['module']}"}
                for level, r in zip(levels, reductions, strict=True)
            ],
            tuple(range(len(levels))),
        )

    def forward(self, normalized: Tensor) -> list[Tensor]:
        """Return maps [B,D,ceil(H/r),ceil(W/r)] of images [B,3,H,W], one for each stride r, fine
        to coarse.
        """
        sides, multiple = normalized.shape[2:], max(self.cell, *self.reductions)
        below, right = (-side % multiple for side in sides)
        padded = F.pad(normalized, (0, right, 0, below))
        images = _resize(padded, [side // self.cell * self.patch for side in padded.shape[2:]])
        maps = self.model.forward_intermediates(
            images, indices=self.indices, norm=True, intermediates_only=True
        )
        return [
            _resize(features, [side // r for side in padded.shape[2:]])[
                ..., : -(-sides[0] // r), : -(-sides[1] // r)
            ]
            for features, r in zip(maps, self.reductions, strict=True)
        ]


def _resize(images: Tensor, size: Sequence[int]) -> Tensor:
    """Resize [B,C,H,W] bilinearly, antialiased where it shrinks."""
    if list(images.shape[2:]) == list(size):
        return images
    shrinks = size[0] < images.shape[2]
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=shrinks)
