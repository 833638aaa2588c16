"""The final models, semantic and instance: rebuilt from their weights files and run on images.

Stage predictions, `weakmask predict` and the ONNX export all use these functions, so that equal
images and settings give equal masks everywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.core.artifacts import Record
from pipeline.core.weights import WeightsError, load_network, read_header
from pipeline.data.instance_masks import pack
from pipeline.instances import rebuild
from pipeline.instances.base import Detections
from pipeline.nets.deeplab import SemanticNet, probabilities

SemanticPredictor = Callable[[Tensor], np.ndarray]
"""From images [B,3,H,W] in 0..255 to class probabilities float32 [B,L,H,W], background first."""
ROWS = 64
"""Rows that enlarged_labels interpolates at a time."""
InstancePredictor = Callable[[Sequence[Tensor] | Tensor], list[Detections]]
"""From images [3,H,W] in 0..255, or a batch of them, to the instances of each."""


def final_header(path: Path) -> Mapping[str, Any]:
    """Return the header of a final model's weights file; raise WeightsError for any other file."""
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file; pass the semantic.safetensors or instance.safetensors of a "
            "finished run"
        )
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{path}: not a weights file; pass the semantic.safetensors or instance.safetensors of "
            "a finished run"
        )
    header = read_header(path)
    if header["kind"] not in ("semantic", "instance"):
        raise WeightsError(
            f"{path}: holds the weights of stage {header['kind']}, not a final model; pass "
            "semantic.safetensors or instance.safetensors"
        )
    if header.get("method") == "none":
        raise WeightsError(
            f"{path}: holds no instance model, as instance.method was none; set it to sparseinst "
            "or maskrcnn and run `dvc repro instance`, or pass semantic.safetensors"
        )
    return header


def semantic_network(header: Mapping[str, Any]) -> SemanticNet:
    """Build the semantic network, without weights, that a weights file's header describes."""
    return SemanticNet(len(header["classes"]) + 1, header["backbone"])


def semantic_predictor(
    path: Path, device: torch.device, *, scales: Sequence[float], flip: bool
) -> SemanticPredictor:
    """Load the semantic model of a weights file; raise WeightsError.

    scales, flip: see pipeline.nets.deeplab.probabilities.
    """
    network = load_network(path, "semantic", semantic_network, device)
    return lambda images: probabilities(network, images, scales, flip).cpu().numpy()


def instance_predictor(path: Path, device: torch.device, **settings: Any) -> InstancePredictor:
    """Load the instance model of a weights file, which detects nothing if its method is `none`;
    raise WeightsError.

    settings: score and sides, see InstanceModel.predict.
    """
    return partial(load_network(path, "instance", rebuild, device).predict, **settings)


def enlarged_labels(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the label map uint8 of (height, width) out of class probabilities float32 [L,h,w] at
    another size, interpolated a few rows at a time.
    """
    height, width = probabilities.shape[1:]
    if (height, width) == size:
        return probabilities.argmax(0).astype(np.uint8)
    labels = np.empty(size, np.uint8)
    rows = np.clip((np.arange(size[0]) + 0.5) * height / size[0] - 0.5, 0, height - 1)
    for start in range(0, size[0], ROWS):
        above = rows[start : start + ROWS].astype(int)
        share = (rows[start : start + ROWS] - above).astype(np.float32)[:, None]
        below = np.minimum(above + 1, height - 1)
        part = probabilities[:, above] * (1 - share) + probabilities[:, below] * share
        wide = [cv2.resize(one, (size[1], len(above))) for one in part]
        labels[start : start + ROWS] = np.argmax(wide, 0)
    return labels


def detection_record(detections: Detections) -> Record:
    """Return detections as artifacts hold them: `instances`, masks as bits (see pack); `classes`
    uint8 [N]; `scores` float32 [N].
    """
    masks, classes, scores = (part.cpu().numpy() for part in detections)
    return {"instances": pack(masks), "classes": classes.astype(np.uint8), "scores": scores}


def trained_sides(header: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the (shorter, longest) side in pixels at which to show images to an instance model.

    The shorter one is the middle of those it was trained at, the longest twice that; None for a
    header without them.
    """
    if "resize" not in header:
        return None
    low, high = header["resize"]
    shorter = round((low + high) / 2)
    return shorter, 2 * shorter


def shown_size(header: Mapping[str, Any], size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) at which to show an image of `size` to a semantic model: with a
    longest side as the images it was trained on had, or unchanged for a header without them.
    """
    low, high = header.get("longest", (max(size), max(size)))
    factor = min(max(max(size), low), high) / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
