"""Segment Anything: our segment-everything map and prompter against the package's own generator and
predictor.

Weights are random. Their masks would be ragged and cover the image, which costs the package more
than trained ones do; so on both sides what the decoder computed is replaced, after the whole of its
work, by the same discs about the prompts, with predicted IoU of which three in ten pass the filter.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import Benchmark
from pipeline.segmenters.prompting import Query
from pipeline.segmenters.sam import AutomaticMaskGenerator, SamPrompter
from pipeline.segmenters.sam_amg import MASKS, Attended, Decoder

SHRINK = torch.tensor([1.0, 0.6, 0.35])
"""Radii of a prompt's three discs, as shares of the largest."""


class Discs:
    """Predicted IoU and low-resolution logits for the prompts of a grid, handed out in the grid's
    order.
    """

    def __init__(self, points_per_side: int) -> None:
        generator = torch.Generator().manual_seed(0)
        count = points_per_side**2
        self.iou = torch.empty(count, MASKS).uniform_(0.6, 1.0, generator=generator)
        self.radius = torch.empty(count, 1).uniform_(10, 60, generator=generator) * SHRINK
        self.side, self.given = points_per_side, 0

    def next(self, count: int) -> Tensor:
        """Numbers of the next prompts; the grid begins again after its last."""
        numbers = torch.arange(self.given, self.given + count) % len(self.iou)
        self.given = (self.given + count) % len(self.iou)
        return numbers

    def logits(self, prompts: Tensor, masks: Tensor, shape: tuple[int, int]) -> Tensor:
        """Logits [n,h,w] of masks (0..2) of prompts."""
        y, x = torch.arange(shape[0])[:, None], torch.arange(shape[1])
        place = (torch.stack([prompts // self.side, prompts % self.side]) + 0.5) / self.side
        down, right = (place * torch.tensor(shape)[:, None]).view(2, -1, 1, 1)
        return 8 * (self.radius[prompts, masks].view(-1, 1, 1) - torch.hypot(y - down, x - right))


class PackageDecoder(nn.Module):
    """The package's mask decoder, its answers replaced by discs."""

    def __init__(self, inner: nn.Module, discs: Discs) -> None:
        super().__init__()
        self.inner, self.discs = inner, discs

    def forward(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        shape = self.inner(**inputs)[0].shape
        prompts = self.discs.next(shape[0])
        every = prompts.repeat_interleave(MASKS), torch.arange(MASKS).repeat(len(prompts))
        return self.discs.logits(*every, shape[2:]).view(shape), self.discs.iou[prompts]


class OurDecoder(Decoder):
    """Our decoder, its answers replaced by discs."""

    def __init__(self, net: Any, discs: Discs) -> None:
        super().__init__(net)
        self.discs = discs

    def attend(
        self, embeddings: Tensor, points_xy: Tensor, labels: Tensor, padding: Tensor | None = None
    ) -> Attended:
        attended = super().attend(embeddings, points_xy, labels, padding)
        self.prompts = self.discs.next(len(points_xy))
        return attended._replace(iou=self.discs.iou[self.prompts])

    def logits(self, attended: Attended, chosen: Tensor) -> Tensor:
        shape = super().logits(attended, chosen).shape
        prompt, mask = chosen.nonzero().T
        return self.discs.logits(self.prompts[prompt], mask, (shape[1], shape[2]))


def network(small: bool = False) -> Any:
    """ViT-B with random weights, or one whose encoder is next to nothing, so that what follows is
    what is measured.
    """
    from segment_anything import sam_model_registry
    from segment_anything.build_sam import _build_sam

    torch.manual_seed(0)
    net = _build_sam(16, 1, 1, []) if small else sam_model_registry["vit_b"]()
    return net.requires_grad_(False)


def sample_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def ours(
    height: int, width: int, points_per_side: int, small: bool = False
) -> Callable[[], object]:
    net, image = network(small), sample_image(height, width)
    everything = AutomaticMaskGenerator(net, points_per_side=points_per_side)
    everything.decoder = OurDecoder(net, Discs(points_per_side))
    return partial(everything.segment, image)


def package(
    height: int, width: int, points_per_side: int, small: bool = False
) -> Callable[[], object]:
    """The package's generator, and its masks painted so that the smallest wins."""
    from segment_anything import SamAutomaticMaskGenerator

    net, image = network(small), sample_image(height, width)
    net.mask_decoder = PackageDecoder(net.mask_decoder, Discs(points_per_side))
    generator = SamAutomaticMaskGenerator(net, points_per_side=points_per_side)

    def call() -> np.ndarray:
        segments = np.zeros((height, width), np.uint16)
        masks = sorted(generator.generate(image), key=lambda mask: -mask["area"])
        for number, mask in enumerate(masks, start=1):
            segments[mask["segmentation"]] = number
        return segments

    return call


def queries(count: int, images: int) -> list[Query]:
    """Prompts of one to four points in images of 375x500 with random embeddings."""
    rng = np.random.default_rng(0)
    records = [
        {
            "segments": np.zeros((375, 500), np.uint16),
            "embeddings": rng.standard_normal((256, 64, 64)).astype(np.float16),
        }
        for _ in range(images)
    ]
    return [
        Query(records[i % images], rng.uniform(0, 375, (1 + i % 4, 2)).astype(np.float32))
        for i in range(count)
    ]


def our_prompts(count: int, images: int) -> Callable[[], object]:
    return partial(SamPrompter(network(small=True)).prompt, queries(count, images))


def package_prompts(count: int, images: int) -> Callable[[], object]:
    """The package's predictor with the stored embeddings, a query at a time."""
    from segment_anything import SamPredictor

    predictor, asked = SamPredictor(network(small=True)), queries(count, images)
    predictor.set_image(sample_image(375, 500))

    def call() -> list[np.ndarray]:
        found = []
        for query in asked:
            predictor.features = torch.from_numpy(query.record["embeddings"]).float()[None]
            masks, iou, _ = predictor.predict(query.points_xy, np.ones(len(query.points_xy)))
            found.append(masks[iou.argmax()])
        return found

    return call


GENERATOR = "segment-anything's generator, smallest wins, same run"
PREDICTOR = "segment-anything's predictor, same run"

BENCHMARKS = (
    Benchmark(
        "SAM ViT-B, segment everything",
        "500x375, 32x32 points",
        partial(ours, 375, 500, 32),
        partial(package, 375, 500, 32),
        GENERATOR,
        runs=1,
    ),
    Benchmark(
        "SAM without its encoder, segment everything",
        "2000x1500, 16x16 points",
        partial(ours, 1500, 2000, 16, True),
        partial(package, 1500, 2000, 16, True),
        GENERATOR,
        runs=1,
    ),
    Benchmark(
        "SAM's answers to S2C from stored embeddings",
        "24 prompts in 16 images",
        partial(our_prompts, 24, 16),
        partial(package_prompts, 24, 16),
        PREDICTOR,
        runs=3,
    ),
)
