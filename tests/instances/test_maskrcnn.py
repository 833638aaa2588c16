"""Mask R-CNN: what torchvision is given, and what of it is configured."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.instances.maskrcnn import MaskRCNN, target_of
from tests.instances.base import SMALL, InstanceModelTester, square_batch


class TestMaskRCNN(InstanceModelTester):
    method = "maskrcnn"
    options = {"channels": 8, "proposals": 16}
    terms = {"classifier", "box_reg", "mask", "objectness", "rpn_box_reg"}

    def detecting(self) -> MaskRCNN:
        model: MaskRCNN = self.model().eval()
        model.net.roi_heads.score_thresh = 0.0
        return model

    @pytest.mark.parametrize("proposals", [1, 8])
    def test_heads_learn_from_the_given_number_of_proposals(self, proposals: int) -> None:
        """The mask head from at most a quarter of them, those on objects."""
        torch.manual_seed(0)
        model, seen = MaskRCNN(3, SMALL, channels=8, proposals=proposals).train(), dict[str, int]()

        def record(head: str) -> Any:
            return lambda module, inputs, output: seen.update({head: len(inputs[0])})

        for head in ("box_head", "mask_head"):
            getattr(model.net.roi_heads, head).register_forward_hook(record(head))
        self.loss(model, square_batch())
        assert seen["box_head"] == 2 * proposals
        assert seen["mask_head"] <= 2 * proposals // 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_boxes_are_exact_in_half_precision(dtype: torch.dtype) -> None:
    """In bfloat16 itself all boxes beyond pixel 512 would lie on multiples of 4."""
    torch.manual_seed(0)
    model, seen = MaskRCNN(3, SMALL, channels=8, proposals=64).eval(), list[Tensor]()
    model.net.rpn.register_forward_hook(lambda module, inputs, output: seen.extend(output[0]))
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        model(torch.rand(1, 3, 64, 800) * 255)
    (boxes,) = seen
    far = boxes[(boxes > 512) & (boxes < 800)]
    assert boxes.dtype == torch.float32
    assert len(far) > 20
    assert (far % 4 != 0).float().mean() > 0.5


def test_targets_are_boxes_around_the_pixels() -> None:
    ids = torch.tensor([[0, 2, 2, 255], [0, 2, 0, 0], [1, 0, 0, 0]], dtype=torch.uint8)
    found = target_of(ids, torch.tensor([4, 0, 7, 255], dtype=torch.uint8))
    assert found["boxes"].tolist() == [[0, 2, 1, 3], [1, 0, 3, 2]]
    assert found["labels"].tolist() == [5, 1]
    assert found["masks"].sum((1, 2)).tolist() == [1, 3]


def test_crop_without_instances_has_an_empty_target() -> None:
    nothing = torch.full((3,), 255, dtype=torch.uint8)
    found = target_of(torch.zeros(8, 8, dtype=torch.uint8), nothing)
    shapes = {key: tuple(value.shape) for key, value in found.items()}
    assert shapes == {"boxes": (0, 4), "labels": (0,), "masks": (0, 8, 8)}


@pytest.mark.parametrize("channels", [8, 16])
def test_channels_shape_pyramid_and_mask_head(channels: int) -> None:
    heads = MaskRCNN(3, SMALL, channels=channels).net.roi_heads
    convolutions = [m for m in heads.mask_head.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == 4 * [(channels, channels)]
    assert heads.mask_predictor.mask_fcn_logits.out_channels == 4
