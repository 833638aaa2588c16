"""The final models, semantic and instance: rebuilt from their weights files, and what they say of pictures.

Everything that uses them takes them from here, so that equal pictures and settings give equal masks everywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.crf import refine_probabilities
from pipeline.instances.detections import Detections, none_found
from pipeline.instances.masks import pack
from pipeline.methods import INSTANCES, rebuild, room
from pipeline.semantic import SemanticNet, probabilities
from pipeline.store import Record
from pipeline.weights import WeightsError, load_network, read_header

KINDS = ("semantic", "instance")
Labeller = Callable[[Tensor], np.ndarray]
"""From pictures [B,3,H,W] in 0..255 to class probabilities float32 [B,L,H,W], background first."""
Finder = Callable[[Sequence[Tensor] | Tensor], list[Detections]]
"""From pictures [3,H,W] in 0..255, or a batch of them, to the instances of each."""


def final_header(path: Path) -> Mapping[str, Any]:
    """The header of a weights file that holds a final model; raises WeightsError for all other files."""
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file; give the semantic.safetensors or instance.safetensors of a finished run"
        )
    header = read_header(path)
    if header["kind"] not in KINDS:
        raise WeightsError(
            f"{path}: holds the weights of stage {header['kind']}, which is no final model; give semantic.safetensors or "
            f"instance.safetensors"
        )
    if header.get("method") == "none":
        raise WeightsError(
            f"{path}: holds no instance model, as instance.method was none; set it to sparseinst or maskrcnn and run "
            f"`dvc repro instance`, or give semantic.safetensors"
        )
    return header


def semantic_network(header: Mapping[str, Any]) -> SemanticNet:
    """The untrained semantic network that a weights file's header describes."""
    return SemanticNet(len(header["classes"]) + 1, header["backbone"])


def labeller(path: Path, device: torch.device, *, scales: Sequence[float], mirror: bool) -> Labeller:
    """What gives the class probabilities of pictures: the semantic model of a weights file; raises WeightsError.

    scales, mirror: see semantic.probabilities.
    """
    network = load_network(path, "semantic", semantic_network, device)
    return lambda pictures: probabilities(network, pictures, scales, mirror).cpu().numpy()


def finder(path: Path, device: torch.device, **settings: Any) -> Finder:
    """What finds the instances of pictures: the model of a weights file, or nothing where that holds none; raises WeightsError.

    settings: score and sides, see the function `detect` of the methods.
    """
    method = read_header(path)["method"]
    if method == "none":
        return lambda pictures: [none_found(*picture.shape[1:]) for picture in pictures]
    network = load_network(path, "instance", partial(rebuild, INSTANCES), device)
    return partial(room(INSTANCES, method, "detections").detect, network, **settings)


def label_map(image: np.ndarray, probabilities: np.ndarray, crf: Mapping[str, Any]) -> np.ndarray:
    """The label map uint8 [H,W] of a picture uint8 [H,W,3] from its class probabilities [L,H,W], refined as `crf` says."""
    return refine_probabilities(image, probabilities, crf).argmax(0).astype(np.uint8)


def as_record(found: Detections) -> Record:
    """Detections as artefacts hold them: masks as bits (see masks.pack), classes uint8 [N], scores float32 [N]."""
    masks, classes, scores = (part.cpu().numpy() for part in found)
    return {"instances": pack(masks), "classes": classes.astype(np.uint8), "scores": scores}


def trained_sides(header: Mapping[str, Any]) -> tuple[int, int] | None:
    """Sides (shorter, longest) in pixels at which an instance model should look at pictures, as far as its weights tell.

    The shorter is the middle of those that it was trained at, the longest twice that; None for a file that does not hold them.
    """
    if "resize" not in header:
        return None
    low, high = header["resize"]
    shorter = round((low + high) / 2)
    return shorter, 2 * shorter
