"""The authors' published SparseInst checkpoints, read into our network.

Their tensors get our names; detectron2's ResNet becomes timm's.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pipeline.core.weights import WeightsError, load_checkpoint, restore
from pipeline.instances.sparseinst import SparseInst

NAMES = (
    (r"^encoder\.fpn_laterals\.", "encoder.laterals."),
    (r"^encoder\.fpn_outputs\.", "encoder.outputs."),
    (r"^encoder\.ppm\.stages\.(\d)\.1\.", r"encoder.pooling.branches.\1."),
    (r"^encoder\.ppm\.bottleneck\.", "encoder.pooling.merge."),
    (r"^encoder\.fusion\.", "encoder.fuse."),
    (r"^decoder\.inst_branch\.inst_convs\.", "decoder.instances.convs."),
    (r"^decoder\.inst_branch\.iam_conv\.", "decoder.instances.activation."),
    (r"^decoder\.inst_branch\.fc\.", "decoder.instances.merge.0."),
    (r"^decoder\.inst_branch\.cls_score\.", "decoder.instances.classes."),
    (r"^decoder\.inst_branch\.mask_kernel\.", "decoder.instances.kernels."),
    (r"^decoder\.inst_branch\.objectness\.", "decoder.instances.objectness."),
    (r"^decoder\.mask_branch\.mask_convs\.", "decoder.masks.convs."),
    (r"^decoder\.mask_branch\.projection\.", "decoder.masks.project."),
    (r"^backbone\.stem\.", "backbone.body."),
    (r"^(backbone\.)res2\.", r"\1body.layer1."),
    (r"^(backbone\.)res3\.", r"\1body.layer2."),
    (r"^(backbone\.)res4\.", r"\1body.layer3."),
    (r"^(backbone\.)res5\.", r"\1body.layer4."),
    (r"^(backbone\..*)conv(\d)\.norm\.", r"\1bn\2."),
    (r"^(backbone\..*)shortcut\.norm\.", r"\1downsample.1."),
    (r"^(backbone\..*)shortcut\.", r"\1downsample.0."),
)
KNOWN = ("pixel_mean", "pixel_std")
"""Dropped: the backbone knows its normalization."""
SOFTMAX, MAP_BIAS = "decoder.inst_branch.softmax_bias", "decoder.instances.activation.bias"
"""Two constants added before a softmax: neither has an effect, both are dropped."""


def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the authors' SparseInst under our names; unknown names stay."""
    translated = {}
    for name, tensor in state.items():
        for pattern, ours in NAMES:
            name = re.sub(pattern, ours, name)
        translated[name] = tensor
    dropped = {*KNOWN, SOFTMAX, MAP_BIAS} if SOFTMAX in state else KNOWN
    return {name: tensor for name, tensor in translated.items() if name not in dropped}


def load_upstream(network: SparseInst, path: Path, sha256: str) -> None:
    """Load a checkpoint of the authors into a network of its size; nothing in the file is executed.

    Args:
        network: takes the weights.
        path: the file as published.
        sha256: its hex digest.

    Raises:
        WeightsError: for another digest, a file that holds more than weights, or tensors that do
            not fit, which are named.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; download a checkpoint published by the authors")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256.lower():
        raise WeightsError(
            f"{path}: its SHA-256 is {found}, expected {sha256}; download it again or correct the "
            f"digest"
        )
    content = load_checkpoint(path)
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path}: contains no state dict; use the file as published by the authors"
        )
    counters = {
        name: value
        for name, value in network.state_dict().items()
        if name.endswith("num_batches_tracked")
    }
    restore(network, counters | translate(content.get("model", content)), path)
