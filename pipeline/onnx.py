"""Final models as ONNX files: exported, described in their metadata, checked against PyTorch.

The exported module holds everything from the image to the masks, so that onnxruntime and the file
are all that a user needs; inputs, outputs, classes and training size are in its metadata.
"""

import copy
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from pipeline.core.weights import load_network
from pipeline.errors import UserError
from pipeline.instances import rebuild
from pipeline.instances.sparseinst import MASK_THRESHOLD, SparseInst, select_queries
from pipeline.instances.sparseinst.network import MASK_STRIDE, MULTIPLE, Outputs
from pipeline.nets.backbones import OUTPUT_STRIDE
from pipeline.nets.deeplab import SemanticNet
from pipeline.predict import (
    InstancePredictor,
    SemanticPredictor,
    final_header,
    instance_predictor,
    semantic_network,
    semantic_predictor,
    trained_sides,
)
from pipeline.readers import scenes

CPU = torch.device("cpu")
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18
"""The oldest opset that torch's exporter writes without a conversion."""
EXAMPLE = (2, 3, 70, 90)
"""Shape of the example images: sides that no stride divides, lest the exporter assume one."""
SIZES = ((1, 96, 128), (2, 131, 97), (1, 224, 320), (1, 375, 500))
"""(images, height, width) of the check: with and without padding, upright and wide, a batch."""
AGREEMENT = 0.999
"""Mask IoU of both results that must be exceeded; rounding moves single pixels."""
SCORE = 0.3
"""A usual score threshold, as in `weakmask predict`."""


class Port(NamedTuple):
    """An input or output: its name, dimensions (a name for one that varies), and meaning."""

    name: str
    dims: tuple[int | str, ...]
    meaning: str


@dataclass(frozen=True, slots=True)
class ExportModel:
    """A model to export.

    module: from the inputs to the outputs, in order; reference: the outputs for images uint8
    [B,3,H,W] (instances of every score) as the rest of the pipeline computes them; iou: of the
    masks of two results; metadata: what else a user has to know.
    """

    module: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    reference: Callable[[Tensor], Sequence[np.ndarray]]
    iou: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], float]
    metadata: Mapping[str, str]


def load_model(path: Path) -> ExportModel:
    """Return the model of a weights file; raise UserError for Mask R-CNN, WeightsError for files
    without a final model.
    """
    header = final_header(path)
    semantic = header["kind"] == "semantic"
    if not semantic and header["method"] != "sparseinst":
        raise UserError(
            f"{path}: {header['method']} cannot be exported; train instance.method sparseinst, or "
            "pass semantic.safetensors"
        )
    classes = ["background", *header["classes"]] if semantic else header["classes"]
    metadata = {
        "task": f"{header['kind']} segmentation",
        "class names": json.dumps(classes, ensure_ascii=False),
        "backbone": header["backbone"],
    }
    multiple = OUTPUT_STRIDE if semantic else MULTIPLE
    pixels = "uint8, RGB, upright, 0 to 255, sides of any length"
    inside = f"normalized, and padded to multiples of {multiple}, inside"
    images = Port("images", ("batch", 3, "height", "width"), f"{pixels}; {inside}")
    if semantic:
        network = load_network(path, "semantic", semantic_network, CPU)
        likeliest = "uint8, the most likely label of each pixel, an index of `class names`"
        scores = "float32, of each label, in the order of `class names`"
        return ExportModel(
            SemanticModule(exportable(network)).eval(),
            (images,),
            (
                Port("labels", ("batch", "height", "width"), likeliest),
                Port("probabilities", ("batch", len(classes), "height", "width"), scores),
            ),
            partial(semantic_reference, semantic_predictor(path, CPU, scales=[1.0], flip=False)),
            label_iou,
            metadata,
        )
    model = load_network(path, "instance", rebuild, CPU)
    sides = trained_sides(header)
    if sides is not None:
        sizes = f"shorter side {sides[0]} pixels, longer side {sides[1]} at most"
        metadata["images it was trained for"] = sizes
    threshold = f"float32 threshold (e.g. {SCORE}), applied before rescoring by mask quality"
    masks = f"bool, where the probability exceeds {MASK_THRESHOLD}"
    return ExportModel(
        InstanceModule(exportable(model)).eval(),
        (images, Port("score", (), threshold)),
        (
            Port("indices", ("found",), "int64, which image of the batch an instance is in"),
            Port("classes", ("found",), "int64, an index of `class names`"),
            Port("scores", ("found",), "float32, 0 to 1"),
            Port("masks", ("found", "height", "width"), masks),
        ),
        partial(instance_reference, instance_predictor(path, CPU, score=0.0, sides=None)),
        instance_iou,
        metadata,
    )


class SemanticModule(nn.Module):
    """A semantic network followed by the softmax."""

    def __init__(self, network: SemanticNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels uint8 [B,H,W] and probabilities [B,L,H,W] of images uint8 [B,3,H,W]."""
        scores = self.network(images).softmax(1)
        return scores.argmax(1).to(torch.uint8), scores


def semantic_reference(predictor: SemanticPredictor, images: Tensor) -> list[np.ndarray]:
    """Return the outputs of a SemanticModule by way of a predictor."""
    scores = predictor(images)
    return [scores.argmax(1), scores]


class InstanceModule(nn.Module):
    """SparseInst with its postprocessing for a whole batch (`detections` works image by image)."""

    def __init__(self, network: SparseInst) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the instances of images uint8 [B,3,H,W] that score above `score`: image [M], class
        [M], score [M] and mask bool [M,H,W].
        """
        height, width = images.shape[2:]
        outputs = self.network.decode(self.network.prepare(images)).outputs
        number = outputs.logits.shape[1]
        queries, cells, classes, scores = select_queries(
            Outputs(*(part.flatten(0, 1) for part in outputs)), score
        )
        upsampled = F.interpolate(
            cells[:, None], scale_factor=MASK_STRIDE, mode="bilinear", align_corners=False
        )
        masks = upsampled[:, 0, :height, :width] > MASK_THRESHOLD
        found = masks.flatten(1).any(1).nonzero()[:, 0]
        return (queries // number)[found], classes[found], scores[found], masks[found]


def instance_reference(predictor: InstancePredictor, images: Tensor) -> list[np.ndarray]:
    """Return the outputs of an InstanceModule by way of a predictor."""
    found = predictor(images)
    numbers = [torch.full((len(one.scores),), number) for number, one in enumerate(found)]
    parts = zip(*((one.classes, one.scores, one.masks) for one in found), strict=True)
    return [torch.cat(list(part)).numpy() for part in (numbers, *parts)]


def exportable(network: nn.Module) -> Any:
    """Return a copy of a network with layers that ONNX can express at every size."""
    changed = copy.deepcopy(network)
    for name, part in list(changed.named_modules()):
        if isinstance(part, Conv2dSame):
            changed.set_submodule(name, FixedPaddingConv(part))
        elif isinstance(part, nn.AdaptiveAvgPool2d):
            cells = part.output_size
            if isinstance(cells, int) and cells > 1:
                changed.set_submodule(name, AveragePooling(cells))
    return changed


class FixedPaddingConv(nn.Module):
    """timm's Conv2dSame for sides that its stride divides, where its padding is constant.

    The networks pad their input to multiples of their stride, so all sides are such. Otherwise the
    exporter expresses each layer's padding by the image's sides, in terms that grow without end.
    """

    def __init__(self, conv: Conv2dSame) -> None:
        super().__init__()
        self.conv = conv
        self.padding: list[int] = []
        sizes = zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
        for kernel, stride, dilation in sizes:
            total = max((kernel - 1) * dilation + 1 - stride, 0)
            self.padding = [total // 2, total - total // 2, *self.padding]

    def forward(self, features: Tensor) -> Tensor:
        """Map [B,C,h,w] to [B,C',h/stride,w/stride]."""
        conv = self.conv
        padded = F.pad(features, self.padding)
        return F.conv2d(padded, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


class AveragePooling(nn.Module):
    """Adaptive average pooling as a product of matrices; ONNX has it for constant sides only."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, features: Tensor) -> Tensor:
        """Map [B,C,h,w] to the averages [B,C,n,n] of n times n cells."""
        rows, columns = (self._weights(side, features) for side in features.shape[2:])
        return rows @ features @ columns.T

    def _weights(self, side: int, like: Tensor) -> Tensor:
        """Return weights [n,side]: cell i averages pixels floor(side i / n) to ceil(side (i+1) /
        n).
        """
        pixels = torch.arange(side, device=like.device)
        cells = torch.arange(self.cells, device=like.device)[:, None]
        inside = (pixels >= cells * side // self.cells) & (pixels * self.cells < (cells + 1) * side)
        return inside.to(like.dtype) / inside.sum(1, keepdim=True)


def require(opset: int) -> None:
    """Raise UserError if a package is not installed, or does not support the opset."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        install = f"pip install {' '.join(PACKAGES)}"
        raise UserError(f"export-onnx: needs {', '.join(missing)}; `{install}` (extra `onnx`)")
    from onnx.defs import onnx_opset_version

    if not OPSET <= opset <= onnx_opset_version():
        raise UserError(f"--opset: {opset} is not supported; use {OPSET} to {onnx_opset_version()}")


def to_onnx(model: ExportModel, opset: int = OPSET) -> bytes:
    """Return the ONNX file of a model; raise UserError if torch cannot export it."""
    try:
        exported = _export(model, opset)
    except Exception as error:  # torch's exporter raises nearly anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"backbone {model.metadata['backbone']} cannot be exported by torch "
            f"{version('torch')}: {reason}; train another backbone, or try another torch"
        ) from error
    _describe(exported, model)
    return exported.SerializeToString(deterministic=True)


def _export(model: ExportModel, opset: int) -> Any:
    """Export with torch.export, whose guards on image sizes are deferred to run time: the proofs of
    paddings for all sizes are beyond it, and check_agreement stands in for them.
    """
    images = torch.zeros(EXAMPLE, dtype=torch.uint8)
    scores = [torch.tensor(SCORE) for _ in model.inputs[1:]]
    dynamic = {n: Dim.DYNAMIC for n, dim in enumerate(model.inputs[0].dims) if isinstance(dim, str)}
    program = torch.export.export(
        model.module,
        (images, *scores),
        dynamic_shapes=[dynamic, *({} for _ in scores)],
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    # warns of what it does not optimize
    logging.getLogger("onnxscript.optimizer._constant_folding").setLevel(logging.ERROR)
    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=opset,
        input_names=[port.name for port in model.inputs],
        output_names=[port.name for port in model.outputs],
        verbose=False,
    )
    assert exported is not None
    return exported.model_proto


def _describe(exported: Any, model: ExportModel) -> None:
    """Write names, shapes and meanings into the model, and remove traces of the source code."""
    from onnx import checker

    graph = exported.graph
    for part in (exported, graph, *exported.functions):
        del part.metadata_props[:]
    for owner in (graph, *exported.functions):
        del owner.value_info[:]
        for node in owner.node:
            del node.metadata_props[:]
            node.doc_string = ""
    metadata = dict(model.metadata)
    for side, values, ports in (
        ("input", graph.input, model.inputs),
        ("output", graph.output, model.outputs),
    ):
        for value, port in zip(values, ports, strict=True):
            metadata[f"{side} {port.name}"] = f"[{', '.join(map(str, port.dims))}] {port.meaning}"
            value.doc_string = port.meaning
            del value.metadata_props[:]
            del value.type.tensor_type.shape.dim[:]
            for dim in port.dims:
                named = {"dim_param": dim} if isinstance(dim, str) else {"dim_value": dim}
                value.type.tensor_type.shape.dim.add(**named)
    for key, text in sorted(metadata.items()):
        exported.metadata_props.add(key=key, value=text)
    checker.check_model(exported)


def check_agreement(
    content: bytes, model: ExportModel, sizes: Sequence[tuple[int, int, int]] = SIZES
) -> list[tuple[tuple[int, int, int], float]]:
    """Return ((images, height, width), mask IoU of onnxruntime and PyTorch) on drawn scenes.

    Raise UserError if onnxruntime cannot run the file, or if they disagree.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class
        raise UserError(
            f"onnxruntime {onnxruntime.__version__} cannot load the model ({error}); lower --opset"
        ) from error
    rows = []
    for count, height, width in sizes:
        images = scene_images(count, height, width)
        scores = {port.name: np.array(0, np.float32) for port in model.inputs[1:]}
        theirs = session.run([port.name for port in model.outputs], {"images": images, **scores})
        ours = model.reference(torch.from_numpy(images))
        iou = model.iou(ours, theirs)
        if not iou > AGREEMENT:
            raise UserError(
                f"onnxruntime and PyTorch agree only to IoU {iou:.4f} on {count} images of "
                f"{width}x{height}, not above {AGREEMENT}; try another --opset, or another "
                "version of torch or onnxruntime"
            )
        rows.append(((count, height, width), iou))
    return rows


def scene_images(count: int, height: int, width: int) -> np.ndarray:
    """Return built-in scenes uint8 [B,3,H,W]; like photographs, they have even areas and edges."""
    drawn = [cv2.resize(scenes.draw(number).image, (width, height)) for number in range(count)]
    return np.ascontiguousarray(np.stack(drawn).transpose(0, 3, 1, 2))


def label_iou(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """Return the IoU of two label maps [B,H,W], the first outputs, over all labels together."""
    same = int((ours[0] == theirs[0]).sum())
    return same / (2 * ours[0].size - same)


def instance_iou(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """Return the IoU of two sets of instances (images [M], classes [M], scores [M], masks bool
    [M,H,W]); 1 if both are empty.

    Sum of the minima over sum of the maxima of the scores by image, class and pixel: order is
    irrelevant, and low scores, whose class rounding may change, count little.
    """
    one, two = _coverage(ours), _coverage(theirs)
    nothing = np.zeros(ours[3].shape[1:], np.float32)
    pairs = [(one.get(key, nothing), two.get(key, nothing)) for key in one.keys() | two.keys()]
    union = sum(float(np.maximum(*pair).sum()) for pair in pairs)
    return sum(float(np.minimum(*pair).sum()) for pair in pairs) / union if union else 1.0


def _coverage(results: Sequence[np.ndarray]) -> dict[tuple[int, int], np.ndarray]:
    """Return the sum of the scores of the masks on each pixel, float32 [H,W], by (image, class)."""
    sums: dict[tuple[int, int], np.ndarray] = {}
    for image, number, score, mask in zip(*results, strict=True):
        key = int(image), int(number)
        sums[key] = sums.get(key, 0) + score * mask
    return sums
