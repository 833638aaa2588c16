"""Minimal filtering against the direct convolution in float64: any size, any batch, and where it is
used.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.instances.sparseinst.network import Encoder
from pipeline.instances.sparseinst.winograd import (
    CHANNELS,
    INPUT,
    OUTPUT,
    Conv3x3,
    minimal_filtering,
)


def maps(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(*shape, generator=generator).relu()
    return values.contiguous(memory_format=torch.channels_last)


def layer(inputs: int, outputs: int) -> Conv3x3:
    torch.manual_seed(0)
    return Conv3x3(inputs, outputs).to(memory_format=torch.channels_last)


def direct(conv: Conv3x3, given: Tensor) -> Tensor:
    bias = conv.get_parameter("bias")
    return F.conv2d(given.double(), conv.weight.double(), bias.double(), padding=1)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4), (7, 12), (33, 41)])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (5, 3), (66, 64)])
@torch.no_grad()
def test_is_the_convolution(inputs: int, outputs: int, size: tuple[int, int]) -> None:
    conv, given = layer(inputs, outputs), maps(2, inputs, *size)
    found, wanted = (
        minimal_filtering(given, conv.weight, conv.get_parameter("bias")),
        direct(conv, given),
    )
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 5e-6 * wanted.abs().max()


@torch.no_grad()
def test_errs_little_more_than_the_direct_convolution() -> None:
    """In float32, at the size of SparseInst's branches; Lavin and Gray's points would err about six
    times as much.
    """
    conv, given = layer(256, 256), maps(1, 256, 64, 64)
    wanted = direct(conv, given)
    plain = F.conv2d(given, conv.weight, conv.bias, padding=1)
    assert conv.filters_minimally(given)
    assert (conv(given) - wanted).abs().max() <= 3 * (plain - wanted).abs().max()


@torch.no_grad()
def test_a_image_does_not_depend_on_others_of_its_batch() -> None:
    conv, given = layer(CHANNELS, CHANNELS), maps(3, CHANNELS, 32, 36)
    assert conv.filters_minimally(given)
    together = conv(given)
    for one, result in zip(given.split(1), together.split(1), strict=True):
        assert torch.equal(conv(one), result)


@torch.no_grad()
def test_any_memory_layout_gives_the_same() -> None:
    conv, given = layer(CHANNELS, CHANNELS), maps(1, CHANNELS, 33, 35)
    assert torch.equal(conv(given), conv(given.contiguous()))


def test_matrices_are_those_of_one_axis_twice() -> None:
    """Transforming ones: every filter of ones gives the sum of the nine cells around."""
    assert INPUT.shape == (36, 36)
    assert OUTPUT.shape == (16, 36)
    found = minimal_filtering(torch.ones(1, 1, 6, 6), torch.ones(1, 1, 3, 3), torch.zeros(1))[0, 0]
    assert found[1:-1, 1:-1].flatten().tolist() == pytest.approx([9.0] * 16)
    assert found[0, 0].item() == pytest.approx(4)


def test_is_used_in_inference_alone() -> None:
    conv, given = layer(CHANNELS, CHANNELS), maps(1, CHANNELS, 32, 32)
    assert not conv.filters_minimally(given)
    with torch.no_grad():
        assert conv.filters_minimally(given)
        assert not conv.filters_minimally(given[:, :, :31])
        assert not conv.filters_minimally(given.bfloat16())
        assert not layer(CHANNELS, CHANNELS // 2).filters_minimally(given)
        with torch.autocast("cpu", torch.bfloat16):
            assert not conv.filters_minimally(given)
            assert conv(given).dtype == torch.bfloat16
    conv(given).sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.isfinite().all()


def test_an_exported_graph_holds_plain_convolutions() -> None:
    with torch.no_grad():
        program = torch.export.export(layer(CHANNELS, CHANNELS), (maps(1, CHANNELS, 32, 32),))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert called == {"aten.conv2d.default"}


@torch.no_grad()
def test_the_encoder_filters_minimally_where_its_maps_are_large() -> None:
    encoder = Encoder((8, 8, 8), CHANNELS).eval()
    levels = [maps(1, 8, 32 // n, 40 // n) for n in (1, 2, 4)]
    seen = list[bool]()
    for output in encoder.outputs:
        output.register_forward_hook(
            lambda conv, given, _: seen.append(conv.filters_minimally(given[0]))
        )
    encoder(levels)
    assert seen == [False, False, True]
