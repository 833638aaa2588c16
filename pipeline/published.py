"""Weights as the authors of the methods published them, under our names: one table of name patterns
per repository.

A file is read as tensors alone: nothing in it is run.
"""

import io
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.core.weights import WeightsError, load_checkpoint


@dataclass(frozen=True, slots=True)
class Repository:
    """Where weights come from.

    Args:
        stage: Stage whose network they are, or None for a backbone pretrained on ImageNet.
        names: Patterns of their names and what ours have instead, applied in this order.
        unused: Pattern of the beginnings of names that are left out where our network has no such
            tensor: duplicates, constants, and layers that no output depends on.
    """

    stage: str | None
    names: tuple[tuple[str, str], ...]
    unused: str


REPOSITORIES = {
    # Ahn et al., CVPR 2019: res50_cam.pth, whose stages are listed three times
    "irn-cam": Repository(
        "classifier",
        ((r"^resnet50\.", "backbone.body."), (r"^classifier\.", "head.")),
        r"stage\d\.|backbone\.\d|newly_added\.",
    ),
    # ... and res50_irn.pth, with the indices of the pairs of its loss
    "irn": Repository(
        "irnet",
        (
            (r"^resnet50\.", "backbone.body."),
            (r"^fc_edge6\.", "boundary.fuse."),
            (r"^fc_dp6\.", "displacement.merge."),
            (r"^(mean_shift|fc_dp7\.4)\.running_mean$", "mean_shift"),
            (r"^fc_dp7\.", "displacement.fuse."),
            *((rf"^fc_edge{n + 1}\.", f"boundary.taps.{n}.") for n in range(5)),
            *((rf"^fc_dp{n + 1}\.", f"displacement.taps.{n}.") for n in range(5)),
        ),
        r"stage\d\.|backbone\.\d|(edge|dp)_layers\.|path_indices|ind_(from|to)$|disp_target$"
        r"|mean_shift\.|displacement\.fuse\.4\.",
    ),
    # Jo and Yu, ICIP 2021: ResNet-50, ResNeSt-101 and ResNeSt-269
    "puzzlecam": Repository(
        "classifier",
        ((r"^model\.", "backbone.body."), (r"^classifier\.", "head.")),
        r"stage\d\.",
    ),
    # Kweon and Yoon, CVPR 2024: net_main.pth
    "s2c": Repository(
        "classifier",
        (
            (r"^(conv1a|b\d(_\d)?|bn7)\.", r"backbone.body.\1."),
            (r"^fc8\.", "embed."),
            (r"^fc9\.", "head."),
        ),
        r"bn8\.",
    ),
    # Cheng et al., CVPR 2022, on detectron2's ResNet; a softmax takes no notice of two constants
    "sparseinst": Repository(
        "instance",
        (
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
            *((rf"^backbone\.res{n + 1}\.", f"backbone.body.layer{n}.") for n in range(1, 5)),
            (r"^(backbone\..*)conv(\d)\.norm\.", r"\1bn\2."),
            (r"^(backbone\..*)shortcut\.norm\.", r"\1downsample.1."),
            (r"^(backbone\..*)shortcut\.", r"\1downsample.0."),
        ),
        r"pixel_(mean|std)$|decoder\.inst_branch\.softmax_bias$"
        r"|decoder\.instances\.activation\.bias$",
    ),
    # ImageNet weights whose names are timm's
    "torchvision": Repository(None, (), r"fc\.|classifier\."),
    # Wu et al., 2016: ilsvrc-cls_rna-a1_cls1000_ep-0001.params, a file of MXNet's
    "wrn38d": Repository(
        None,
        (
            (r"^(arg|aux):", ""),
            (r"^conv1a_", "conv1a."),
            (r"^bn7_", "bn7."),
            (r"^(res|bn)(\d)a_", r"\1\2_"),
            (r"^(res|bn)(\d)b(\d)_", r"\1\2_\3_"),
            (r"^res([\d_]+)_(branch\w+)_weight$", r"b\1.conv_\2.weight"),
            (r"^bn([\d_]+)_(branch\w+?)_", r"b\1.bn_\2."),
            (r"gamma$", "weight"),
            (r"beta$", "bias"),
            (r"moving_", "running_"),
        ),
        r"linear1000_",
    ),
}


def translate(
    state: Mapping[str, Tensor], repository: Repository, own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors of a published state dict under our names; unknown names stay.

    own: state dict of our network, whose batch counters are taken where theirs are missing: no
    result depends on them.
    """
    found = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    for name, tensor in state.items():
        for pattern, ours in repository.names:
            name = re.sub(pattern, ours, name)
        if name in own or not re.match(repository.unused, name):
            found[name] = tensor
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a published file, PyTorch's or MXNet's, by name.

    Raises:
        WeightsError: The file is missing, damaged, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(MXNET))
        if start == MXNET:
            return _read_mxnet(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); name a file") from error
    except (struct.error, ValueError, OverflowError, MemoryError) as error:
        raise WeightsError(f"{path}: damaged ({error}); download it again") from error
    content = load_checkpoint(path)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: contains no state dict; use the file as published")
    return state


MXNET = struct.pack("<QQ", 0x112, 0)
"""Start of MXNet's files of named arrays."""
VERSIONS = {0xF993FAC8: 1, 0xF993FAC9: 2}
"""Of its arrays; the first version has its number of axes in this place."""


def _read_mxnet(content: bytes) -> dict[str, Tensor]:
    """Return the dense float32 arrays of an MXNet file, which are stored before their names."""
    stream = io.BytesIO(content[len(MXNET) :])

    def take(kinds: str) -> tuple[int, ...]:
        """Read the next little-endian numbers, kinds as struct writes them."""
        return struct.unpack(f"<{kinds}", stream.read(struct.calcsize(f"<{kinds}")))

    arrays = []
    for _ in range(take("Q")[0]):
        (axes,) = take("I")
        version = VERSIONS.get(axes, 0)
        if version == 2 and take("i") != (0,):
            raise ValueError("a sparse array")
        shape = take(f"{take('I')[0]}q") if version else take(f"{axes}I")
        *_, kind = take("iii")
        if kind:
            raise ValueError("an array that is not float32")
        data = stream.read(4 * int(np.prod(shape, dtype=np.int64)))
        arrays.append(torch.from_numpy(np.frombuffer(data, "<f4").reshape(shape).copy()))
    names = [stream.read(take("Q")[0]).decode() for _ in range(take("Q")[0])]
    return dict(zip(names, arrays, strict=True))
