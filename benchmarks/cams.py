"""Class activation maps at four scales with flips: batches of images against one image, one flip at
a time.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Benchmark
from pipeline.classifiers.cam import Cam
from pipeline.classifiers.extraction import activation_maps, cam_records

SCALES = (1.0, 0.5, 1.5, 2.0)
HEIGHT, WIDTH, CLASSES = 240, 320, 20
TAGS = (2, 7)


def inputs(samples: int) -> tuple[Cam, Tensor]:
    """Return a classifier with random weights (time does not depend on them) and uint8 samples."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (samples, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    return Cam(CLASSES, "tf_efficientnet_lite0").eval(), images


def ours(samples: int) -> Callable[[], object]:
    network, images = inputs(samples)

    def call() -> object:
        normalized, tags = network.backbone.normalize(images), torch.ones(samples, CLASSES)
        maps = activation_maps(network, normalized, tags, SCALES, flip=True)
        return cam_records(maps, [TAGS] * len(maps), (HEIGHT, WIDTH))

    return call


def one_at_a_time(samples: int) -> Callable[[], object]:
    network, images = inputs(samples)

    @torch.inference_mode()
    def call() -> list[Tensor]:
        return [_one(network, network.backbone.normalize(image[None]), SCALES) for image in images]

    return call


def _one(network: Cam, normalized: Tensor, scales: Sequence[float]) -> Tensor:
    """One forward pass a scale and side, resampled without regard to the padding, as the published
    code does.
    """
    size = ((HEIGHT - 1) // 4 + 1, (WIDTH - 1) // 4 + 1)
    total, tags = torch.zeros(1, CLASSES, *size), torch.ones(1, CLASSES)
    for scale in scales:
        scaled = F.interpolate(
            normalized,
            (round(HEIGHT * scale), round(WIDTH * scale)),
            mode="bicubic",
            antialias=scale < 1,
        )
        maps = network.maps(scaled, tags).relu() + network.maps(scaled.flip(3), tags).relu().flip(3)
        total += F.interpolate(maps, size, mode="bilinear", align_corners=False)
    kept = total[0, list(TAGS)]
    return kept / (kept.amax((1, 2), keepdim=True) + 1e-5)


BENCHMARKS = tuple(
    Benchmark(
        "CAMs, 4 scales, flipped",
        f"{images} images {WIDTH}x{HEIGHT} in one batch",
        partial(ours, images),
        partial(one_at_a_time, images),
        "one image, one flip at a time (torch), same run",
        runs=3,
    )
    for images in (1, 2, 8)
)
