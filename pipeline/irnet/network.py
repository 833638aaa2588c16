"""IRNet: a frozen backbone with two light heads, one for class boundaries and one for displacements
(IRNet, section 4.1).

Feature maps of stride 2 are max-pooled to stride 4 first (in ResNet-50 that is exactly the
published stem). All convolutions are 1x1 without bias; each is followed by group normalization,
resizing and ReLU.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.nets.backbones import OUTPUT_STRIDE, Backbone, micro_batches, pad_to_multiple

STRIDE = 4
"""Pixels per cell of boundaries and displacements."""


class Tap(nn.Sequential):
    """A 1x1 convolution with group normalization that brings a feature map to a head's width."""

    def __init__(self, channels: int, width: int, groups: int) -> None:
        super().__init__(nn.Conv2d(channels, width, 1, bias=False), nn.GroupNorm(groups, width))

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:  # type: ignore[override]
        """Return the tap's map [B,width,*size], rectified after resizing."""
        mapped: Tensor = super().forward(features)
        if mapped.shape[2:] != size:
            mapped = F.interpolate(mapped, size, mode="bilinear", align_corners=False)
        return mapped.relu()


class BoundaryHead(nn.Module):
    """Class-boundary logits [B,1,h,w] from all taps (edge branch e1 to e6)."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.taps = nn.ModuleList([Tap(width, 32, 4) for width in channels])
        self.fuse = nn.Conv2d(32 * len(channels), 1, 1)

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits [B,1,h,w] on a grid of `size` (h,w) from one feature map per tap."""
        tapped = [tap(part, size) for tap, part in zip(self.taps, features, strict=True)]
        return self.fuse(torch.cat(tapped, 1))


class DisplacementHead(nn.Module):
    """Displacement field [B,2,h,w] (y, x) in stride-4 cells (branch d1 to d7): coarse maps are
    merged at stride 8, then all at stride 4.
    """

    FINE = (64, 128)
    COARSE = 256

    def __init__(self, channels: list[int], reductions: list[int]) -> None:
        super().__init__()
        self.fine = sum(reduction <= STRIDE for reduction in reductions)
        widths = [
            *self.FINE[len(self.FINE) - self.fine :],
            *[self.COARSE] * (len(channels) - self.fine),
        ]
        groups = {64: 8, 128: 16, self.COARSE: 16}
        self.taps = nn.ModuleList(
            [Tap(c, w, groups[w]) for c, w in zip(channels, widths, strict=True)]
        )
        self.merge = Tap(self.COARSE * (len(channels) - self.fine), self.COARSE, 16)
        self.fuse = nn.Sequential(
            nn.Conv2d(sum(widths[: self.fine]) + self.COARSE, 256, 1, bias=False),
            nn.GroupNorm(16, 256),
            nn.ReLU(),
            nn.Conv2d(256, 2, 1, bias=False),
        )

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return displacements on a grid of `size` (h,w) from one feature map per tap."""
        half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
        sizes = [size] * self.fine + [half] * (len(features) - self.fine)
        taps = zip(self.taps, features, sizes, strict=True)
        mapped = [tap(part, at) for tap, part, at in taps]
        coarse = self.merge(torch.cat(mapped[self.fine :], 1), size)
        return self.fuse(torch.cat([*mapped[: self.fine], coarse], 1))


class IRNet(nn.Module):
    """The network of boundary logits and displacements on the stride-4 grid.

    The backbone is frozen, in evaluation mode and without gradients. `mean_shift` [2] is subtracted
    from the displacements outside training; it is zero until set.

    Args:
        backbone: name of the timm backbone.
        weights: see Backbone.
        canvas: side in pixels that smaller images are padded to, since the padding counts in the
            statistics of group normalization (published code: the training crop's); 0 for none.
    """

    mean_shift: Tensor

    def __init__(self, backbone: str, weights: str = "none", canvas: int = 0) -> None:
        super().__init__()
        self.canvas = canvas
        self.backbone = Backbone(backbone, weights).requires_grad_(False)
        # of maps of stride 4 and finer the heads take two: VGG has one more
        fine = sum(reduction <= STRIDE for reduction in self.backbone.reductions)
        self.first = max(0, fine - len(DisplacementHead.FINE))
        channels, reductions = (
            values[self.first :] for values in (self.backbone.channels, self.backbone.reductions)
        )
        self.boundary = BoundaryHead(channels)
        self.displacement = DisplacementHead(channels, reductions)
        self.register_buffer("mean_shift", torch.zeros(2))

    def train(self, mode: bool = True) -> "IRNet":
        """Switch the heads' mode; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boundary logits and displacements of images [B,3,H,W] in 0..255."""
        return self.relations(self.backbone.normalize(images))

    def relations(self, normalized: Tensor) -> tuple[Tensor, Tensor]:
        """Return boundary logits [B,1,h,w] and displacements [B,2,h,w] of normalized images
        [B,3,H,W], with h = (H-1)//4+1.
        """
        boundary, displacement = self.unshifted(normalized)
        if not self.training:
            displacement = displacement - self.mean_shift.view(1, 2, 1, 1)
        return boundary, displacement

    def unshifted(self, normalized: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `relations` does, before the mean displacement is subtracted.

        Images are padded with the mean color to the canvas, then to a multiple of 16, so that every
        tap covers the same area.
        """
        padded = pad_to_multiple(self.on_canvas(normalized), OUTPUT_STRIDE)
        size = (padded.shape[2] // STRIDE, padded.shape[3] // STRIDE)
        features = self.features(padded)
        displacement, boundary = self.displacement(features, size), self.boundary(features, size)
        height, width = ((side - 1) // STRIDE + 1 for side in normalized.shape[2:])
        return boundary[..., :height, :width], displacement[..., :height, :width]

    def on_canvas(self, normalized: Tensor) -> Tensor:
        """Pad [B,3,H,W] with zeros on the right and bottom to the canvas; a side beyond it stays
        (the published code crops it).
        """
        below, right = (max(0, self.canvas - side) for side in normalized.shape[2:])
        return F.pad(normalized, (0, right, 0, below))

    @torch.no_grad()
    def features(self, normalized: Tensor) -> list[Tensor]:
        """Return the backbone's feature maps that the heads take, none finer than stride 4."""
        taps = [*zip(self.backbone(normalized), self.backbone.reductions, strict=True)]
        return [
            F.max_pool2d(tap, 3, 2, 1) if reduction < STRIDE else tap
            for tap, reduction in taps[self.first :]
        ]


@torch.inference_mode()
def fields_of(network: IRNet, normalized: Tensor, flip: bool) -> tuple[Tensor, Tensor]:
    """Return the boundary map [B,h,w] in (0,1) and the displacement field [B,2,h,w] of normalized
    images [B,3,H,W] of any size.

    flip: whether the logits are averaged with those of the flipped image before the sigmoid;
    displacements are those of the image itself.
    """
    # Whole cells, so that those of the flipped image coincide with those of the image. On a canvas
    # the image is flipped as it is, as in the published code: up to three pixels off.
    whole = normalized if network.canvas else pad_to_multiple(normalized, STRIDE)
    inputs = torch.cat([whole, whole.flip(3)]) if flip else whole
    logits, displacement = map(
        torch.cat, zip(*map(network.relations, micro_batches(inputs)), strict=True)
    )
    if flip:
        straight, flipped = logits.chunk(2)
        logits = (straight + flipped.flip(3)) / 2
        displacement = displacement[: len(normalized)]
    # Image by image: a CPU rounds the last values of a tensor differently from those that it
    # computes eight or sixteen at a time.
    boundary = torch.cat([one.float().sigmoid() for one in logits.split(1)])
    return boundary[:, 0], displacement.float()
