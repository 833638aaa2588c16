"""Published weights: the authors' networks and ours give the same outputs with the same weights,
every name finds its place, and what is no state dict is refused.

The golden files hold names and shapes of the authors' tensors, an input and their networks'
outputs; the weights are `made_up` from names and shapes.
"""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.core.weights import WeightsError
from pipeline.irnet.network import IRNet, fields_of
from pipeline.params import parse, presets
from pipeline.published import REPOSITORIES, read_tensors, translate
from stages import classifier, irnet

GOLDEN = Path(__file__).parent / "golden" / "authors"
CLASSES = [f"class {number}" for number in range(20)]


def made_up(name: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor of a name: random by its checksum, of a scale that keeps activations level."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if kind == "running_var":
        values = 0.5 + random.random_sample(shape)
    elif kind == "weight" and len(shape) < 2:
        values = 0.3 + 0.5 * random.random_sample(shape)
    elif len(shape) < 2:
        values = 0.1 * random.standard_normal(shape)
    else:
        values = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.float32(values))


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The arrays of a golden file, and the weights that its outputs belong to."""
    arrays = dict(np.load(GOLDEN / f"{name}.npz"))
    names, shapes = arrays.pop("names"), arrays.pop("shapes")
    state = {
        str(key): made_up(str(key), tuple(map(int, shape.split())))
        for key, shape in zip(names, shapes, strict=True)
    }
    return {key: torch.from_numpy(value) for key, value in arrays.items()}, state


def with_weights(state: dict[str, Tensor], source: str, preset: str) -> Any:
    """The network of a preset with the authors' weights."""
    parameters = parse(presets.load(preset))
    section: Any = getattr(parameters, str(REPOSITORIES[source].stage))
    backbone = section.backbone.model_copy(update={"weights": "none"})
    section = section.model_copy(update={"backbone": backbone})
    network: nn.Module
    if source == "irn":
        network, _ = irnet.new_network(section)
    else:
        network, _ = classifier.new_network(section, CLASSES)
    own = network.state_dict()
    network.load_state_dict(translate(state, REPOSITORIES[source], own), strict=True)
    return network.eval()


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@torch.inference_mode()
def test_irn_classifier() -> None:
    arrays, state = golden("irn_cam")
    copies = {"stage2.0.0.conv1.weight": torch.zeros(1), "newly_added.0.weight": torch.zeros(1)}
    network = with_weights(state | copies, "irn-cam", "voc12")
    pair = torch.cat([arrays["input"], arrays["input"].flip(3)])
    maps = network.maps(pair, torch.ones(2, 20))
    assert_close(maps[:1].mean((2, 3)), arrays["logits"])
    assert_close(maps[0].relu() + maps[1].relu().flip(2), arrays["cam"])


@torch.inference_mode()
def test_irn_fields() -> None:
    arrays, state = golden("irn_fields")
    state["mean_shift.running_mean"] = arrays["mean_shift"]
    copies = ("mean_shift.running_var", "path_indices_0", "edge_layers.0.0.weight")
    network: IRNet = with_weights(state | dict.fromkeys(copies, torch.ones(2)), "irn", "voc12")
    network.canvas = 128
    for size in ("full", "93x125"):
        boundary, displacement = fields_of(network, arrays[f"input_{size}"], flip=True)
        assert_close(boundary, arrays[f"edge_{size}"])
        assert_close(displacement[0], arrays[f"dp_{size}"])


@pytest.mark.slow
@torch.inference_mode()
def test_puzzlecam_on_resnest() -> None:
    arrays, state = golden("puzzlecam_resnest101")
    network = with_weights(state, "puzzlecam", "voc12-puzzlecam")
    maps = network.maps(arrays["input"], torch.ones(1, 20))
    assert_close(maps, arrays["maps"])
    assert_close(maps.mean((2, 3)), arrays["logits"])


@pytest.mark.slow
@torch.inference_mode()
def test_s2c_on_wrn38d() -> None:
    arrays, state = golden("s2c_wrn38d")
    network = with_weights(state, "s2c", "voc12-s2c")
    features = network.features(arrays["input"])
    maps = network.head(features)
    assert_close(features, arrays["feat"])
    assert_close(maps, arrays["cam"])
    assert_close(maps.mean((2, 3)), arrays["pred"])


NAMES = """
irn         fc_dp7.4.running_mean                mean_shift
sparseinst  backbone.stem.conv1.norm.weight      backbone.body.bn1.weight
sparseinst  backbone.res4.5.conv2.norm.bias      backbone.body.layer3.5.bn2.bias
sparseinst  backbone.res2.0.shortcut.weight      backbone.body.layer1.0.downsample.0.weight
sparseinst  backbone.res5.0.shortcut.norm.bias   backbone.body.layer4.0.downsample.1.bias
torchvision layer1.0.conv1.weight                layer1.0.conv1.weight
wrn38d      arg:conv1a_weight                    conv1a.weight
wrn38d      arg:res2a_branch1_weight             b2.conv_branch1.weight
wrn38d      arg:bn2b1_branch2b1_gamma            b2_1.bn_branch2b1.weight
wrn38d      aux:bn4b5_branch2a_moving_var        b4_5.bn_branch2a.running_var
wrn38d      arg:bn7a_branch2b2_beta              b7.bn_branch2b2.bias
wrn38d      aux:bn7_moving_mean                  bn7.running_mean
"""


@pytest.mark.parametrize("row", NAMES.split("\n")[1:-1])
def test_names(row: str) -> None:
    source, theirs, ours = row.split()
    assert list(translate({theirs: torch.zeros(1)}, REPOSITORIES[source], {})) == [ours]


def test_constants_before_a_softmax_and_heads_of_imagenet_are_left_out() -> None:
    state = {f"decoder.inst_branch.{n}": torch.zeros(1) for n in ("softmax_bias", "iam_conv.bias")}
    assert translate(state, REPOSITORIES["sparseinst"], {}) == {}
    own = {"decoder.instances.activation.bias": torch.zeros(1)}
    assert list(translate(state, REPOSITORIES["sparseinst"], own)) == list(own)
    head = {"arg:linear1000_weight": torch.zeros(1)}
    assert translate(head, REPOSITORIES["wrn38d"], {}) == {}


def mxnet_file(arrays: dict[str, np.ndarray], version: int) -> bytes:
    """A file of MXNet's, with arrays of one of its three versions."""
    parts = [struct.pack("<QQQ", 0x112, 0, len(arrays))]
    for array in arrays.values():
        axes, sides = array.ndim, array.shape
        parts += [
            struct.pack(f"<I{axes}I", axes, *sides),
            struct.pack(f"<II{axes}q", 0xF993FAC8, axes, *sides),
            struct.pack(f"<IiI{axes}q", 0xF993FAC9, 0, axes, *sides),
        ][version : version + 1]
        parts += [struct.pack("<iii", 1, 0, 0), array.tobytes()]
    parts += [struct.pack("<Q", len(arrays))]
    for name in arrays:
        parts += [struct.pack("<Q", len(name)), name.encode()]
    return b"".join(parts)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_arrays_of_mxnet(tmp_path: Path, version: int) -> None:
    arrays: dict[str, np.ndarray] = {
        "arg:conv1a_weight": np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1) / 2,
        "aux:bn7_moving_var": np.array([1.5, 2.5], np.float32),
    }
    path = tmp_path / "x.params"
    path.write_bytes(mxnet_file(arrays, version))
    found = read_tensors(path)
    assert list(found) == list(arrays)
    assert all(np.array_equal(found[name].numpy(), value) for name, value in arrays.items())
    if version == 2:  # the file that MXNet 1.9.1 wrote of these arrays
        assert zlib.crc32(path.read_bytes()) == 0x6C5B0918


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


@pytest.mark.parametrize(
    "content",
    [Code(), [torch.zeros(2)], {"a": 1}, b"", mxnet_file({"a": np.ones(3)}, 0)[:-9], None],
)
def test_other_content_is_refused_and_not_run(
    tmp_path: Path, content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=r"w\.pth: (holds|contains|damaged|cannot be read)"):
        read_tensors(path)
    assert capsys.readouterr().out == ""
