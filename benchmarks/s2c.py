"""S2C's contrast of segments, forward and backward, against the formula pixel by pixel at full
resolution.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Benchmark
from pipeline.classifiers.s2c.losses import segment_contrast

IMAGES, SIDE, CHANNELS, SEGMENTS, TEMPERATURE = 8, 256, 256, 256, 0.5


def batch() -> tuple[Tensor, Tensor]:
    """Return coarse features of 8 crops, and 256 square segments in each."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(
        IMAGES, CHANNELS, SIDE // 16, SIDE // 16, generator=generator, requires_grad=True
    )
    blocks = torch.arange(1, SEGMENTS + 1, dtype=torch.int32).view(SIDE // 16, SIDE // 16)
    segments = blocks.repeat_interleave(16, 0).repeat_interleave(16, 1)
    return features, segments.expand(IMAGES, -1, -1).contiguous()


def ours(stride: int) -> Callable[[], object]:
    features, segments = batch()
    return lambda: torch.autograd.grad(
        segment_contrast(features, segments, TEMPERATURE, stride), features
    )


def transcribed() -> Callable[[], object]:
    features, segments = batch()
    ids = segments.flatten(1).long() - 1
    return lambda: torch.autograd.grad(_loss(features, ids), features)


def _loss(features: Tensor, ids: Tensor) -> Tensor:
    """The whole batch at once, as the published code has it, with the paper's temperature and
    learning prototypes.
    """
    pixels = F.interpolate(features, (SIDE, SIDE), mode="bilinear", align_corners=False).flatten(2)
    index = ids[:, None].expand_as(pixels)
    sums = pixels.new_zeros(IMAGES, CHANNELS, SEGMENTS).scatter_add(2, index, pixels)
    prototypes = F.normalize(sums, dim=1)  # of equal length, whether sum or mean
    cosines = prototypes.transpose(1, 2) @ F.normalize(pixels, dim=1)
    return F.cross_entropy(cosines / TEMPERATURE, ids)


WHAT = "segment contrast, forward and backward"
SIZE = f"{IMAGES} crops {SIDE}x{SIDE}, {SEGMENTS} segments, {CHANNELS} channels, {{}}"
BENCHMARKS = (
    Benchmark(
        WHAT,
        SIZE.format("every pixel"),
        partial(ours, 1),
        transcribed,
        "the formula pixel by pixel (torch), same run",
        runs=3,
    ),
    Benchmark(
        WHAT,
        SIZE.format("every fourth pixel each way"),
        partial(ours, 4),
        transcribed,
        "the same at every pixel, same run",
        runs=3,
    ),
)
