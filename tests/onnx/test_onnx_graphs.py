"""The graphs as PyTorch modules: equal to what the pipeline does elsewhere, and layers that ONNX
lacks replaced by equal ones.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from pipeline.core.weights import save_weights
from pipeline.errors import UserError
from pipeline.instances.maskrcnn import MaskRCNN
from pipeline.onnx import agreement
from pipeline.onnx.checking import images
from pipeline.onnx.graphs import Averages, EvenConv, exportable, graph_of


@pytest.mark.parametrize("size", [(1, 64, 96), (2, 45, 70), (1, 5, 9)])
def test_a_graph_gives_what_the_pipeline_gives(
    semantic_model: Path, instance_model: Path, size: tuple[int, int, int]
) -> None:
    given = torch.from_numpy(images(*size))
    for graph, *rest in (
        (graph_of(semantic_model),),
        (graph_of(instance_model), torch.tensor(0.0)),
    ):
        with torch.no_grad():
            ours = [part.numpy() for part in graph.module(given, *rest)]
        theirs = [part.numpy() for part in graph.reference(given)]
        assert graph.agreement(ours, theirs) > 0.9999
        assert agreement.difference(ours[graph.numbers], theirs[graph.numbers]) < 1e-5
        assert len(np.unique(ours[0])) > 1 or size[0] == 1


def test_a_score_leaves_instances_out(instance_model: Path) -> None:
    graph, given = graph_of(instance_model), torch.from_numpy(images(2, 64, 96))
    with torch.no_grad():
        outputs = graph.module.network(given)
        scores = (outputs.logits.amax(2).sigmoid() * outputs.objectness.sigmoid()).sqrt()
        everything, some, none = (
            graph.module(given, torch.as_tensor(score)) for score in (0.0, scores.median(), 1.0)
        )
    assert len(everything[0]) > len(some[0]) > 0
    assert [tuple(part.shape) for part in none] == [(0,), (0,), (0,), (0, 64, 96)]


def test_mask_rcnn_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "instance.safetensors"
    header = {
        "method": "maskrcnn",
        "backbone": "test_resnet",
        "classes": ["cat"],
        "options": {"channels": 8},
    }
    save_weights(path, MaskRCNN(1, "test_resnet", channels=8), "instance", **header)
    with pytest.raises(
        UserError, match=r"holds maskrcnn, which is not exported; train instance\.method sparseinst"
    ):
        graph_of(path)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 4, 5])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_fixed_padding_is_tensorflows_for_sides_that_divide(
    kernel: int, stride: int, dilation: int
) -> None:
    conv = Conv2dSame(3, 4, kernel, stride=stride, dilation=dilation)
    features = torch.randn(2, 3, 8, 12)
    with torch.no_grad():
        torch.testing.assert_close(EvenConv(conv)(features), conv(features))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (12, 6), (20, 1)])
@pytest.mark.parametrize("cells", [2, 3, 6])
def test_averages_are_adaptive_pooling(cells: int, size: tuple[int, int]) -> None:
    features = torch.randn(2, 3, *size)
    torch.testing.assert_close(Averages(cells)(features), nn.AdaptiveAvgPool2d(cells)(features))


def test_layers_are_replaced_in_a_copy() -> None:
    network = nn.Sequential(
        nn.AdaptiveAvgPool2d(3), nn.AdaptiveAvgPool2d(1), Conv2dSame(3, 4, 3, stride=2)
    )
    changed = exportable(network)
    assert [type(part) for part in changed] == [Averages, nn.AdaptiveAvgPool2d, EvenConv]
    assert [type(part) for part in network] == [
        nn.AdaptiveAvgPool2d,
        nn.AdaptiveAvgPool2d,
        Conv2dSame,
    ]
