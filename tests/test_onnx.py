"""Modules to export: equal to what the pipeline does elsewhere, with layers that ONNX lacks
replaced by equal ones; and how agreement is measured.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from pipeline.onnx import (
    AveragePooling,
    FixedPaddingConv,
    exportable,
    instance_iou,
    label_iou,
    load_model,
    scene_images,
)


@pytest.mark.parametrize("size", [(1, 64, 96), (2, 45, 70), (1, 5, 9)])
def test_module_returns_what_the_pipeline_does(
    semantic_model: Path, instance_model: Path, size: tuple[int, int, int]
) -> None:
    images = torch.from_numpy(scene_images(*size))
    for path, *score in ((semantic_model,), (instance_model, torch.tensor(0.0))):
        model = load_model(path)
        with torch.no_grad():
            ours = [part.numpy() for part in model.module(images, *score)]
        theirs = model.reference(images)
        assert model.iou(ours, theirs) > 0.9999
        for one, other in zip(ours, theirs, strict=True):
            assert one.shape == other.shape
        np.testing.assert_allclose(ours[len(score) + 1], theirs[len(score) + 1], atol=1e-5)
        assert len(np.unique(ours[0])) > 1 or size[0] == 1


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(1, 2, 1), (3, 1, 1), (3, 2, 1), (4, 2, 1), (5, 1, 2)]
)
def test_fixed_padding_equals_same_padding(kernel: int, stride: int, dilation: int) -> None:
    conv = Conv2dSame(3, 4, kernel, stride=stride, dilation=dilation)
    features = torch.randn(2, 3, 8, 12)
    with torch.no_grad():
        torch.testing.assert_close(FixedPaddingConv(conv)(features), conv(features))


def test_layers_are_replaced_in_a_copy() -> None:
    pools = [nn.AdaptiveAvgPool2d(cells) for cells in (3, 1)]
    network = nn.Sequential(*pools, Conv2dSame(3, 4, 3, stride=2))
    kinds = [type(part) for part in exportable(network)]
    assert kinds == [AveragePooling, nn.AdaptiveAvgPool2d, FixedPaddingConv]
    assert [type(part) for part in network] == [*map(type, pools), Conv2dSame]


def test_labels_that_differ_count_on_both_sides() -> None:
    ours = [np.zeros((1, 10, 10), np.uint8)]
    theirs = [ours[0].copy()]
    assert label_iou(ours, theirs) == 1
    theirs[0][0, 0, :5] = 3
    assert label_iou(ours, theirs) == pytest.approx(95 / 105)


def instances(*rows: tuple[int, int, int, int], score: float = 1) -> list[np.ndarray]:
    """Results of (image, class, first and last column of a 4 x 10 mask), of one score."""
    masks = np.zeros((len(rows), 4, 10), bool)
    for mask, (_, _, first, last) in zip(masks, rows, strict=True):
        mask[:, first:last] = True
    images, classes = (np.array([row[n] for row in rows], np.int64) for n in (0, 1))
    return [images, classes, np.full(len(rows), score, np.float32), masks]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([(0, 1, 0, 4), (0, 1, 2, 8), (1, 0, 0, 4)], [(1, 0, 0, 4), (0, 1, 2, 8), (0, 1, 0, 4)], 1),
        ([], [], 1),
        ([(0, 1, 0, 4)], [], 0),
        ([(0, 1, 0, 4)], [(0, 1, 0, 5)], 4 / 5),
        ([(0, 1, 0, 4)], [(0, 2, 0, 4)], 0),
        ([(0, 1, 0, 4)], [(1, 1, 0, 4)], 0),
        ([(0, 1, 0, 4)], [(0, 1, 0, 4), (0, 1, 0, 4)], 1 / 2),
    ],
    ids=["order", "none", "missing", "pixels", "class", "image", "twice"],
)
def test_instances_agree_by_image_class_and_pixel(
    ours: list[tuple[int, int, int, int]],
    theirs: list[tuple[int, int, int, int]],
    expected: float,
) -> None:
    assert instance_iou(instances(*ours), instances(*theirs)) == pytest.approx(expected)


def test_an_instance_counts_by_its_score() -> None:
    sure = instances((0, 1, 0, 4))
    ours, theirs = (
        [np.concatenate(parts) for parts in zip(sure, unsure, strict=True)]
        for unsure in (instances((0, n, 4, 8), score=0.002) for n in (0, 2))
    )
    assert instance_iou(ours, theirs) == pytest.approx(1 / 1.004)
