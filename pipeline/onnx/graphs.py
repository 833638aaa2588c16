"""The final models from the image to the masks, as modules that can be exported, and what goes in
and comes out.
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.core.weights import load_network
from pipeline.errors import UserError
from pipeline.instances.base import InstanceModel
from pipeline.instances.registry import rebuild
from pipeline.instances.sparseinst import SparseInst
from pipeline.instances.sparseinst.network import MASK_STRIDE, MULTIPLE, Outputs
from pipeline.instances.sparseinst.predict import MASK_THRESHOLD, select_queries
from pipeline.nets.backbones import OUTPUT_STRIDE
from pipeline.nets.deeplab import SemanticNet, probabilities
from pipeline.onnx import agreement
from pipeline.onnx.agreement import Results
from pipeline.predict import final_header, semantic_network, trained_sides

SCORE = 0.3
"""A usual score to give in, as in `predict`."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: dimensions, by number or the name of one that varies, and what it is;
    value: a usual one of a number.
    """

    name: str
    dims: tuple[int | str, ...]
    meaning: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """A model to export.

    module: takes the inputs in order and gives the outputs in order; reference: what the outputs
    should be for images uint8 [B,3,H,W], instances with every score, computed as everywhere else in
    the pipeline; agreement: how far two results agree, 0 to 1; numbers: the output of probabilities
    or scores; properties: what a user has to know.
    """

    module: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    reference: Callable[[Tensor], tuple[Tensor, ...]]
    agreement: Callable[[Results, Results], float]
    numbers: int
    properties: Mapping[str, str]


def graph_of(path: Path) -> Graph:
    """The graph of a weights file with a final model; raises WeightsError for other files,
    UserError for Mask R-CNN.
    """
    header = final_header(path)
    if header["kind"] == "semantic":
        return semantic_graph(path, header)
    if header["method"] == "sparseinst":
        return instance_graph(path, header)
    raise UserError(
        f"{path}: holds {header['method']}, which is not exported; train instance.method sparseinst, or give semantic.safetensors"
    )


def images_port(multiple: int) -> Port:
    """The input of images, which are padded to sides that divide by `multiple`."""
    padded = f"normalized, and padded to multiples of {multiple}, inside"
    meaning = f"uint8, RGB, upright, 0 to 255, sides of any length; {padded}"
    return Port("images", ("batch", 3, "height", "width"), meaning)


def semantic_graph(path: Path, header: Mapping[str, Any]) -> Graph:
    """Images in, label maps and class probabilities out: what `predict` gives at scale 1 without
    flip and CRF.
    """
    network = load_network(path, "semantic", semantic_network, torch.device("cpu"))
    labels = ["background", *header["classes"]]

    def reference(images: Tensor) -> tuple[Tensor, ...]:
        """Label maps [B,H,W] and probabilities [B,L,H,W]."""
        given = probabilities(network, images, [1.0], flip=False)
        return given.argmax(1), given

    return Graph(
        SemanticGraph(exportable(network)).eval(),
        (images_port(OUTPUT_STRIDE),),
        (
            Port(
                "labels",
                ("batch", "height", "width"),
                "uint8, the likeliest label of each pixel, an index of `class names`",
            ),
            Port(
                "probabilities",
                ("batch", len(labels), "height", "width"),
                "float32, of each label, in the order of `class names`",
            ),
        ),
        reference,
        agreement.of_labels,
        1,
        {
            "task": "semantic segmentation",
            "class names": _json(labels),
            "backbone": header["backbone"],
        },
    )


def instance_graph(path: Path, header: Mapping[str, Any]) -> Graph:
    """Images in, instances out: what SparseInst's `predict` gives for images at their own size."""
    network = load_network(path, "instance", rebuild, torch.device("cpu"))
    sides = trained_sides(header)
    properties = {
        "task": "instance segmentation",
        "class names": _json(header["classes"]),
        "backbone": header["backbone"],
    }
    if sides is not None:
        properties["images it was trained for"] = (
            "shorter side {} pixels, longer side {} at most".format(*sides)
        )
    return Graph(
        InstanceGraph(exportable(network)).eval(),
        (
            images_port(MULTIPLE),
            Port(
                "score",
                (),
                f"float32, what queries must score, such as {SCORE}, before the sureness of their masks lowers it",
                SCORE,
            ),
        ),
        (
            Port("images", ("found",), "int64, which image of the batch an instance is in"),
            Port("classes", ("found",), "int64, an index of `class names`"),
            Port("scores", ("found",), "float32, 0 to 1"),
            Port(
                "masks",
                ("found", "height", "width"),
                f"bool, where the probability exceeds {MASK_THRESHOLD}",
            ),
        ),
        partial(every_instance, network),
        agreement.of_instances,
        2,
        properties,
    )


def every_instance(network: InstanceModel, images: Tensor) -> tuple[Tensor, ...]:
    """The instances of samples uint8 [B,3,H,W], whatever they score, as the outputs of an
    InstanceGraph.
    """
    found = network.predict(images, score=0.0)
    samples = [torch.full((len(one.scores),), number) for number, one in enumerate(found)]
    parts = zip(*((one.classes, one.scores, one.masks) for one in found), strict=True)
    return torch.cat(samples), *map(torch.cat, parts)


class SemanticGraph(nn.Module):
    """A semantic network with the softmax behind it."""

    def __init__(self, network: SemanticNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Labels uint8 [B,H,W] and probabilities [B,L,H,W] of images uint8 [B,3,H,W]."""
        given = self.network(images).softmax(1)
        return given.argmax(1).to(torch.uint8), given


class InstanceGraph(nn.Module):
    """SparseInst with all that makes instances of its outputs, which sparseinst.predict
    otherwise does image by image.
    """

    def __init__(self, network: SparseInst) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images [M], classes [M], scores [M] and masks bool [M,H,W] of what scores more than
        `score` in uint8 [B,3,H,W].
        """
        height, width = images.shape[2:]
        outputs = self.network.decode(self.network.prepare(images))
        number = outputs.logits.shape[1]
        queries, cells, classes, scores = select_queries(
            Outputs(*(part.flatten(0, 1) for part in outputs)), score
        )
        enlarged = F.interpolate(
            cells[:, None], scale_factor=MASK_STRIDE, mode="bilinear", align_corners=False
        )
        masks = enlarged[:, 0, :height, :width] > MASK_THRESHOLD
        there = masks.flatten(1).any(1).nonzero()[:, 0]
        return (queries // number)[there], classes[there], scores[there], masks[there]


def exportable(network: nn.Module) -> Any:
    """A copy of a network with equal layers in place of those that ONNX, or its exporter, cannot do
    at every size.
    """
    changed = copy.deepcopy(network)
    for name, part in list(changed.named_modules()):
        if isinstance(part, Conv2dSame):
            changed.set_submodule(name, EvenConv(part))
        elif (
            isinstance(part, nn.AdaptiveAvgPool2d)
            and isinstance(part.output_size, int)
            and part.output_size > 1
        ):
            changed.set_submodule(name, Averages(part.output_size))
    return changed


class EvenConv(nn.Module):
    """timm's Conv2dSame for sides that its stride divides, where its padding is the same for all of
    them.

    The networks pad their input to multiples of their stride, so all sides are such. Without this
    the exporter works out the padding of each layer as an expression of the image's sides, which
    grow until it comes to no end.
    """

    def __init__(self, conv: Conv2dSame) -> None:
        super().__init__()
        self.conv = conv
        self.padding: list[int] = []
        for kernel, stride, dilation in zip(
            conv.kernel_size, conv.stride, conv.dilation, strict=True
        ):
            total = max((kernel - 1) * dilation + 1 - stride, 0)
            self.padding = [total // 2, total - total // 2, *self.padding]

    def forward(self, features: Tensor) -> Tensor:
        """[B,C,h,w] to [B,C',h/stride,w/stride]."""
        conv = self.conv
        padded = F.pad(features, self.padding)
        return F.conv2d(padded, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


class Averages(nn.Module):
    """Adaptive average pooling as a product of matrices; ONNX has no such layer for sides that
    vary.
    """

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, features: Tensor) -> Tensor:
        """[B,C,h,w] to the averages [B,C,n,n] of n times n cells."""
        rows, columns = (averaging(side, self.cells, features) for side in features.shape[2:])
        return rows @ features @ columns.T


def averaging(side: int, cells: int, like: Tensor) -> Tensor:
    """Weights [cells,side], in the type of `like`, of the pixels floor(side n / cells) to ceil(side
    (n + 1) / cells) of cell n.
    """
    pixels, numbers = (
        torch.arange(side, device=like.device),
        torch.arange(cells, device=like.device)[:, None],
    )
    inside = (pixels >= numbers * side // cells) & (pixels * cells < (numbers + 1) * side)
    return inside.to(like.dtype) / inside.sum(1, keepdim=True)


def _json(values: object) -> str:
    return json.dumps(values, ensure_ascii=False)
