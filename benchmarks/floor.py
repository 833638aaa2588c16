"""The parts that run on the device against the least time that their operations and bytes could
take there.

    python -m benchmarks.floor                       on the GPU where there is one, else on the CPU
    python -m benchmarks.floor --device cpu --walk 32 48 --images 4 --crop 128 --batch 4

Operations and bytes a second are the machine's own, measured in the same run: products of large
matrices, and copies of a tensor that no cache holds. A network's operators each read their inputs
and write their outputs; the walk's stencil is read once a product. What caches and fused operators
spare can therefore fall below the floor of bytes. The walk is also done as published, by squaring
the dense transition matrix.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import walk
from benchmarks.__main__ import header
from pipeline.classifiers.cam import Cam
from pipeline.core.device import Runtime, resolve
from pipeline.irnet.paths import directions
from pipeline.irnet.walk import chebyshev_coefficients, random_walk
from pipeline.nets.deeplab import SemanticNet

BACKBONE, CLASSES = "tf_efficientnet_lite0", 20
MAPS, TOLERANCE = 2, 1e-5
MATRIX = {"cpu": 2048, "cuda": 8192}
COPY = {"cpu": 2**26, "cuda": 2**28}
"""Side of the matrices, and numbers that are copied, which measure what the device can do."""
WALKED = {"cpu": 8, "cuda": 360}
"""Images that walk at a time."""
SECONDS = 2.0
"""For how long a call is repeated; the best counts."""
Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a device does in a second: operations in the precision of the networks and in float32,
    and bytes moved.
    """

    operations: float
    single: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Part:
    """Something done to `images` images, the operations that it takes and the bytes that it moves."""

    what: str
    call: Call
    images: int
    operations: float
    bytes: float
    single: bool = False


class Traffic(TorchDispatchMode):
    """Counts the bytes that operators read and write, each for itself; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operator and count its tensors."""
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [
                leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)
            ]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return out


def best(call: Call, device: torch.device) -> float:
    """Seconds of the fastest of the calls within SECONDS, the first one not counted."""
    found: list[float] = []
    began = time.perf_counter()
    while len(found) < 2 or time.perf_counter() - began < SECONDS:
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        found.append(time.perf_counter() - start)
    return min(found[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def limits(here: Runtime) -> Limits:
    """Measure the device."""
    side, numbers = MATRIX[here.device.type], COPY[here.device.type]
    one = torch.randn(side, side, device=here.device)
    low = one.to(here.precision)
    source = torch.zeros(numbers, device=here.device)
    target = torch.empty_like(source)
    products = 2 * side**3
    return Limits(
        products / best(lambda: low @ low, here.device),
        products / best(lambda: one @ one, here.device),
        2 * source.nbytes / best(lambda: target.copy_(source), here.device),
    )


def counted(what: str, call: Call, images: int) -> Part:
    """A part whose operations and bytes are those of the operators that it calls."""
    call()  # what is made once is not counted
    mapping = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter, Traffic() as traffic:
        call()
    return Part(what, call, images, counter.get_total_flops(), traffic.bytes)


def _convolution_backward(
    gradient: Sequence[int], inputs: Sequence[int], weights: Sequence[int], *settings: Any, **_: Any
) -> int:
    """Operations of a convolution's gradients, for shapes; PyTorch counts a grouped one as if it
    had no groups.
    """
    transposed, wanted = settings[4], settings[7]
    forward = 2 * prod(inputs if transposed else gradient) * prod(weights[1:])
    return forward * sum(wanted[:2])


def walking(height: int, width: int, images: int, device: torch.device) -> Part:
    """The walk; each of its products reads the stencil and two terms and writes one, and adds that
    to the sum.
    """
    inputs = [walk.image(height, width, MAPS, seed) for seed in range(images)]
    boundaries, maps = ([part.to(device) for part in parts] for parts in zip(*inputs, strict=True))
    products = len(chebyshev_coefficients(walk.STEPS, TOLERANCE)) - 1
    cells, neighbors = images * height * width, len(directions(walk.RADIUS))
    return Part(
        f"walk, {walk.STEPS} steps, {height}x{width}, {MAPS} maps",
        partial(
            random_walk,
            boundaries,
            maps,
            radius=walk.RADIUS,
            beta=walk.BETA,
            steps=walk.STEPS,
            tolerance=TOLERANCE,
        ),
        images,
        2 * products * cells * MAPS * (2 * neighbors + 1),
        4 * products * cells * (neighbors + 1 + 4 * MAPS),
        single=True,
    )


def squaring(height: int, width: int, device: torch.device) -> Part:
    """The same walk of one image as published: the dense transition matrix squared until it stands
    for all steps.
    """
    transition, seeds = (part.to(device) for part in walk.dense(*walk.image(height, width, MAPS)))
    cells, products = height * width, walk.STEPS.bit_length() - 1
    return Part(
        f"the same by {products} squarings of the dense matrix",
        partial(walk.squared, transition, seeds),
        1,
        2 * products * cells**3,
        4 * products * 3 * cells**2,
        single=True,
    )


def networks(crop: int, batch: int, here: Runtime) -> Iterator[Part]:
    """The classifier's maps, its forward and backward pass, and those of the semantic model."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, crop, crop), dtype=torch.uint8, device=here.device)
    tags = torch.ones(batch, CLASSES, device=here.device)
    classifier = Cam(CLASSES, BACKBONE).to(here.device)
    model = SemanticNet(CLASSES, BACKBONE).to(here.device)
    size = f"{batch} x {crop}x{crop}, {BACKBONE}"

    def maps() -> Tensor:
        return classifier.maps(classifier.backbone.normalize(images), tags)

    @torch.inference_mode()
    def forward() -> None:
        with here.autocast():
            maps()

    def backward(network: nn.Module, compute: Callable[[], Tensor]) -> None:
        network.zero_grad(set_to_none=True)
        with here.autocast():
            outputs = compute()
        outputs.float().square().mean().backward()

    yield counted(f"class maps, {size}", forward, batch)
    yield counted(
        f"the same and backward, {size}", partial(backward, classifier.train(), maps), batch
    )
    step = partial(backward, model.train(), partial(model, images))
    yield counted(f"DeepLabV3+ and backward, {size}", step, batch)


def row(part: Part, device: torch.device, able: Limits) -> str:
    """A line of the table."""
    seconds = best(part.call, device)
    by_operations = part.operations / (able.single if part.single else able.operations)
    by_bytes = part.bytes / able.bytes
    floor = max(by_operations, by_bytes)
    cells = (
        part.what,
        f"{part.images / seconds:.4g}",
        f"{seconds * 1e3:.4g} ms",
        f"{by_operations * 1e3:.3g} ms",
        f"{by_bytes * 1e3:.3g} ms",
        f"{seconds / floor:.2f}",
    )
    return "| " + " | ".join(cells) + " |"


@click.command()
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    help="Of the networks: auto, float32, bfloat16.",
)
@click.option(
    "--walk",
    "cells",
    type=(int, int),
    default=(94, 125),
    show_default=True,
    help="Cells of an image.",
)
@click.option(
    "--images", type=click.IntRange(1), help=f"Images that walk at a time. [default: {WALKED}]"
)
@click.option(
    "--crop", default=512, show_default=True, type=click.IntRange(64), help="Side of the crops."
)
@click.option(
    "--batch", default=8, show_default=True, type=click.IntRange(2), help="Crops a batch."
)
def main(
    device: str, precision: str, cells: tuple[int, int], images: int | None, crop: int, batch: int
) -> None:
    """Print a table of parts."""
    here = resolve(
        device=device,
        precision=precision,
        workers=1,
        batch=batch,
        shard=1,
        checkpoint=1,
        skip_bad=False,
        work=".",
    )
    for line in header("benchmarks.floor"):
        click.echo(line)
    able = limits(here)
    click.echo(
        f"{here.device}: {able.operations / 1e12:.3g} TFLOP/s in {here.precision}, {able.single / 1e12:.3g} in float32, "
        f"{able.bytes / 1e9:.3g} GB/s\n\n"
        "| what | images a second | time | floor of operations | floor of bytes | times the floor |\n"
        "|---|---|---|---|---|---|"
    )
    walked = walking(*cells, images or WALKED[here.device.type], here.device)
    for part in (walked, squaring(*cells, here.device), *networks(crop, batch, here)):
        click.echo(row(part, here.device, able))


if __name__ == "__main__":
    main()
