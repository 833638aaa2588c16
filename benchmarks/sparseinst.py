"""SparseInst's encoder and decoder against plain PyTorch that computes them as published."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Benchmark
from pipeline.instances.sparseinst.network import Decoder, Encoder, Outputs

CHANNELS, STRIDES = (512, 1024, 2048), (8, 16, 32)
QUERIES, CLASSES, SIDE = 100, 80, 512


def head() -> tuple[Encoder, Decoder, list[Tensor]]:
    """Return encoder, decoder and the features of an image as a ResNet-50 gives them."""
    torch.manual_seed(0)
    features = [
        torch.randn(1, channels, SIDE // stride, SIDE // stride)
        for channels, stride in zip(CHANNELS, STRIDES, strict=True)
    ]
    encoder, decoder = Encoder(CHANNELS), Decoder(256, CLASSES, queries=QUERIES, groups=4)
    return encoder.requires_grad_(False), decoder.requires_grad_(False), features


def our_head() -> Callable[[], object]:
    encoder, decoder, features = head()
    for part in (encoder, decoder):
        part.to(memory_format=torch.channels_last)
    features = [part.contiguous(memory_format=torch.channels_last) for part in features]
    return torch.inference_mode()(lambda: decoder(encoder(features)))


def plain_head() -> Callable[[], object]:
    encoder, decoder, features = head()
    return torch.inference_mode()(lambda: plain_decoder(decoder, plain_encoder(encoder, features)))


def plain_encoder(encoder: Encoder, features: Sequence[Tensor]) -> Tensor:
    """Return the fused levels, each resized before they are concatenated."""
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
    outputs = [output(level) for output, level in zip(encoder.outputs, levels, strict=True)][::-1]
    size = outputs[0].shape[2:]
    return encoder.fuse(
        torch.cat([outputs[0], *(resize(output, size) for output in outputs[1:])], 1)
    )


def plain_decoder(decoder: Decoder, features: Tensor) -> Outputs:
    """Return the outputs of one grouped convolution for all maps, regrouped after pooling."""
    batch, _, height, width = features.shape
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    located = torch.cat([torch.stack([x, y]).expand(batch, -1, -1, -1), features], 1)
    branch = decoder.instances
    hidden = branch.convs(located)
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
    features = decoder.masks.project(decoder.masks.convs(located))
    masks = torch.bmm(kernels, features.view(batch, kernels.shape[2], -1)).view(
        batch, queries, height, width
    )
    masks = F.interpolate(masks, scale_factor=2.0, mode="bilinear", align_corners=False)
    return Outputs(branch.classes(pooled), masks, branch.objectness(pooled)[..., 0])


BENCHMARKS = (
    Benchmark(
        "SparseInst, encoder and decoder",
        f"{SIDE}x{SIDE}, ResNet-50 features",
        our_head,
        plain_head,
        "plain PyTorch as published, same run",
    ),
)
