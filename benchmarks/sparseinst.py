"""SparseInst's head, losses and post-processing against plain PyTorch that computes them as the
published code does.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import Benchmark
from pipeline.instances.sparseinst.losses import Weights, loss_terms, match, targets_of, total_loss
from pipeline.instances.sparseinst.network import Decoder, Encoder, Outputs
from pipeline.instances.sparseinst.predict import detections

CHANNELS = (512, 1024, 2048)
QUERIES, CLASSES, GROUPS = 100, 80, 4
IMAGES, INSTANCES, CROP = 4, 10, 512
HEIGHT, WIDTH = 480, 640


def head(training: bool) -> tuple[Encoder, Decoder, list[Tensor]]:
    """Encoder, decoder and the features of an image of 512x512 as a ResNet-50 gives them."""
    torch.manual_seed(0)
    features = [
        torch.randn(1, c, CROP // s, CROP // s) for c, s in zip(CHANNELS, (8, 16, 32), strict=True)
    ]
    parts = Encoder(CHANNELS), Decoder(256, CLASSES, queries=QUERIES, groups=GROUPS)
    for part in parts:
        part.requires_grad_(training)
    return *parts, features


def our_head() -> Callable[[], object]:
    encoder, decoder, features = head(training=False)
    for part in (encoder, decoder):
        part.to(memory_format=torch.channels_last)
    features = [part.contiguous(memory_format=torch.channels_last) for part in features]
    return torch.inference_mode()(lambda: decoder(encoder(features)))


def plain_head() -> Callable[[], object]:
    encoder, decoder, features = head(training=False)
    return torch.inference_mode()(lambda: plain_decoder(decoder, plain_encoder(encoder, features)))


def plain_encoder(encoder: Encoder, features: Sequence[Tensor]) -> Tensor:
    """Levels resized, concatenated, then fused."""
    resize = partial(F.interpolate, mode="bilinear", align_corners=False)
    coarse, *finer = [
        lateral(x) for lateral, x in zip(encoder.laterals, features[::-1], strict=True)
    ]
    pooled = [
        resize(F.relu(branch(F.adaptive_avg_pool2d(coarse, bins))), coarse.shape[2:])
        for branch, bins in zip(encoder.pooling.branches, (1, 2, 3, 6), strict=True)
    ]
    levels = [F.relu(encoder.pooling.merge(torch.cat([*pooled, coarse], 1)))]
    for lateral in finer:
        levels.append(lateral + F.interpolate(levels[-1], scale_factor=2.0, mode="nearest"))
    outputs = [plain(output, level) for output, level in zip(encoder.outputs, levels, strict=True)][
        ::-1
    ]
    size = outputs[0].shape[2:]
    return encoder.fuse(
        torch.cat([outputs[0], *(resize(output, size) for output in outputs[1:])], 1)
    )


def plain(layers: nn.Module, maps: Tensor) -> Tensor:
    """Convolutions as PyTorch computes them, and what lies between."""
    if isinstance(layers, nn.Sequential):
        return reduce(lambda given, layer: plain(layer, given), layers, maps)
    return nn.Conv2d.forward(layers, maps) if isinstance(layers, nn.Conv2d) else layers(maps)


def plain_decoder(decoder: Decoder, features: Tensor) -> Outputs:
    """One grouped convolution for all maps, regrouped by query after pooling."""
    batch, _, height, width = features.shape
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    located = torch.cat([torch.stack([x, y]).expand(batch, -1, -1, -1), features], 1)
    branch = decoder.instances
    hidden = plain(branch.convs, located)
    maps = branch.activation(hidden).sigmoid().view(batch, -1, height * width)
    maps = maps / maps.sum(-1, keepdim=True).clamp(min=1e-6)
    pooled = torch.bmm(maps, hidden.view(batch, hidden.shape[1], -1).permute(0, 2, 1))
    queries = maps.shape[1] // branch.groups
    pooled = (
        pooled.reshape(batch, branch.groups, queries, -1)
        .transpose(1, 2)
        .reshape(batch, queries, -1)
    )
    pooled = branch.merge(pooled)
    kernels = branch.kernels(pooled)
    features = decoder.masks.project(plain(decoder.masks.convs, located))
    masks = torch.bmm(kernels, features.view(batch, kernels.shape[2], -1)).view(
        batch, queries, height, width
    )
    masks = F.interpolate(masks, scale_factor=2.0, mode="bilinear", align_corners=False)
    return Outputs(branch.classes(pooled), masks, branch.objectness(pooled)[..., 0])


def batch() -> tuple[Outputs, Tensor, Tensor]:
    """Outputs, id maps [B,S,S] in blocks, and the classes [B,T] of the ids."""
    generator = torch.Generator().manual_seed(0)
    shapes = (QUERIES, CLASSES), (QUERIES, CROP // 4, CROP // 4), (QUERIES,)
    outputs = [
        torch.randn(IMAGES, *shape, generator=generator).requires_grad_() for shape in shapes
    ]
    blocks = torch.randint(
        0, INSTANCES + 1, (IMAGES, 16, 16), generator=generator, dtype=torch.uint8
    )
    ids = blocks.repeat_interleave(CROP // 16, 1).repeat_interleave(CROP // 16, 2)
    return (
        Outputs(*outputs),
        ids,
        torch.randint(0, CLASSES, (IMAGES, INSTANCES), generator=generator),
    )


def our_losses() -> Callable[[], object]:
    outputs, ids, classes = batch()
    slots, weights = torch.full((IMAGES, 100), 255, dtype=torch.uint8), torch.ones(IMAGES, 100)
    slots[:, :INSTANCES] = classes

    def call() -> None:
        targets = targets_of(ids, slots, weights, "bilinear")
        matches = match(outputs, targets)
        pairs = torch.tensor(float(len(matches.query)))
        total_loss(loss_terms(outputs, targets, matches, pairs), Weights()).backward()

    return call


def plain_losses() -> Callable[[], object]:
    outputs, ids, classes = batch()
    masks = [(ids[b] == torch.arange(1, INSTANCES + 1).view(-1, 1, 1)) for b in range(IMAGES)]
    return lambda: plain_loss(outputs, masks, list(classes)).backward()


def plain_loss(outputs: Outputs, masks: list[Tensor], classes: list[Tensor]) -> Tensor:
    """Every query scored against every instance of the batch; targets resized for the matching and
    again for the losses.
    """
    pairs = plain_matching(outputs, masks, classes)
    images = torch.cat([torch.full_like(query, b) for b, (query, _) in enumerate(pairs)])
    queries = torch.cat([query for query, _ in pairs])
    targets = plain_resize(torch.cat(masks), outputs)
    starts = [sum(len(part) for part in masks[:b]) for b in range(len(masks))]
    chosen = torch.cat([target + start for (_, target), start in zip(pairs, starts, strict=True)])
    count = max(1, len(queries))
    wanted = torch.zeros_like(outputs.logits)
    wanted[images, queries, torch.cat(classes)[chosen]] = 1
    p = outputs.logits.sigmoid()
    entropies = F.binary_cross_entropy_with_logits(outputs.logits, wanted, reduction="none")
    focal = entropies * (1 - p * wanted - (1 - p) * (1 - wanted)) ** 2
    focal = (0.25 * wanted + 0.75 * (1 - wanted)) * focal
    logits, targets = outputs.masks[images, queries].flatten(1), targets[chosen]
    with torch.no_grad():
        found, true = logits.sigmoid() >= 0.4, targets > 0.5
        ious = (found & true).sum(-1) / ((found | true).sum(-1) + 1e-6)
    m = logits.sigmoid()
    dices = 1 - 2 * (m * targets).sum(-1) / ((m * m).sum(-1) + (targets * targets).sum(-1) + 1e-4)
    objectness = F.binary_cross_entropy_with_logits(outputs.objectness[images, queries], ious)
    mask = F.binary_cross_entropy_with_logits(logits, targets)
    return 2 * focal.sum() / count + 2 * dices.sum() / count + 5 * mask + objectness


@torch.no_grad()
def plain_matching(
    outputs: Outputs, masks: list[Tensor], classes: list[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    targets = plain_resize(torch.cat(masks), outputs)
    m = outputs.masks.flatten(0, 1).flatten(1).sigmoid()
    squares = (m * m).sum(-1)[:, None] + (targets * targets).sum(-1)
    overlaps = 2 * (m @ targets.t()) / (squares + 1e-4)
    scores = overlaps**0.8 * outputs.logits.sigmoid().flatten(0, 1)[:, torch.cat(classes)] ** 0.2
    parts = scores.view(IMAGES, QUERIES, -1).cpu().split([len(part) for part in classes], -1)
    pairs = [linear_sum_assignment(part[b], maximize=True) for b, part in enumerate(parts)]
    return [(torch.as_tensor(query), torch.as_tensor(target)) for query, target in pairs]


def plain_resize(masks: Tensor, outputs: Outputs) -> Tensor:
    """Bool masks [T,H,W] to [T,P]."""
    size = outputs.masks.shape[2:]
    resized = F.interpolate(masks[:, None].float(), size, mode="bilinear", align_corners=False)
    return resized[:, 0].flatten(1)


def found(covering: bool) -> Outputs:
    """Outputs of one image, all of whose queries are kept: discs of 10 to 120 pixels' radius, or
    masks that cover all of it.
    """
    generator = torch.Generator().manual_seed(0)
    y, x = torch.arange(HEIGHT // 4)[:, None] * 4.0, torch.arange(WIDTH // 4) * 4.0
    place = torch.rand(2, QUERIES, 1, 1, generator=generator)
    radius = torch.empty(QUERIES, 1, 1).uniform_(10, 120, generator=generator)
    discs = (radius - torch.hypot(y - HEIGHT * place[0], x - WIDTH * place[1])) / 4
    masks = torch.randn(discs.shape, generator=generator) if covering else discs
    return Outputs(
        torch.randn(QUERIES, CLASSES, generator=generator),
        masks,
        torch.randn(QUERIES, generator=generator),
    )


def our_detections(covering: bool) -> Callable[[], object]:
    return partial(detections, found(covering), (HEIGHT, WIDTH), (HEIGHT, WIDTH), 0.005)


def plain_detections(covering: bool) -> Callable[[], object]:
    return partial(plain_results, found(covering), (HEIGHT, WIDTH), (HEIGHT, WIDTH))


@torch.no_grad()
def plain_results(
    outputs: Outputs, inner: tuple[int, int], size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """All masks resized twice in float."""
    scores, classes = (
        (outputs.logits.sigmoid() * outputs.objectness.sigmoid()[:, None]).sqrt().max(-1)
    )
    kept = scores > 0.005
    scores, classes, masks = scores[kept], classes[kept], outputs.masks[kept].sigmoid()
    above = masks > 0.45
    scores = scores * (masks * above).sum((1, 2)) / (above.sum((1, 2)) + 1e-6)
    padded = [4 * side for side in masks.shape[1:]]
    masks = F.interpolate(masks[:, None], padded, mode="bilinear", align_corners=False)
    masks = masks[:, :, : inner[0], : inner[1]]
    masks = F.interpolate(masks, size, mode="bilinear", align_corners=False)[:, 0]
    return masks > 0.45, classes, scores


PLAIN = "plain PyTorch as published, same run"

BENCHMARKS = (
    Benchmark(
        "SparseInst's encoder and decoder",
        "512x512, ResNet-50 features",
        our_head,
        plain_head,
        PLAIN,
    ),
    Benchmark(
        "SparseInst's matching and losses, forward and backward",
        f"{IMAGES} images, {QUERIES} queries, {INSTANCES} instances each, 128x128",
        our_losses,
        plain_losses,
        PLAIN,
        runs=9,
    ),
    Benchmark(
        "SparseInst's masks of objects",
        f"{QUERIES} queries to {WIDTH}x{HEIGHT}",
        partial(our_detections, False),
        partial(plain_detections, False),
        PLAIN,
        runs=9,
    ),
    Benchmark(
        "SparseInst's masks that cover the image",
        f"{QUERIES} queries to {WIDTH}x{HEIGHT}",
        partial(our_detections, True),
        partial(plain_detections, True),
        PLAIN,
        runs=9,
    ),
)
