"""Small networks of segment_anything's own classes with random weights, and images for them."""

from typing import Any

import numpy as np
import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.segmenters.prompting import Query

SIDE = 256
"""Side of the network's square input; its embeddings are 32 x 16 x 16, its masks 64 x 64."""


def small_sam(seed: int = 0, gain: float = 3.0) -> Any:
    """A Sam in evaluation mode; `gain` scales the decoder's weights, so that masks and predicted
    IoU differ between prompts.
    """
    torch.manual_seed(seed)
    grid = (SIDE // 16, SIDE // 16)
    net = Sam(
        ImageEncoderViT(
            img_size=SIDE,
            embed_dim=32,
            depth=2,
            num_heads=2,
            out_chans=32,
            use_rel_pos=True,
            window_size=7,
            global_attn_indexes=(1,),
        ),
        PromptEncoder(
            embed_dim=32, image_embedding_size=grid, input_image_size=(SIDE, SIDE), mask_in_chans=4
        ),
        MaskDecoder(
            transformer_dim=32,
            transformer=TwoWayTransformer(depth=2, embedding_dim=32, num_heads=4, mlp_dim=64),
            iou_head_hidden_dim=32,
        ),
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "rel_pos" in name:
                parameter.normal_(std=0.3)
            elif name.startswith("mask_decoder") and parameter.ndim > 1 and "token" not in name:
                parameter.mul_(gain)
            elif name.startswith("mask_decoder") and name.endswith("bias"):
                # attention's biases start at zero, where omitting one would have no effect
                parameter.normal_(std=0.2)
    return net.eval().requires_grad_(False)


class LocalMaskDecoder(nn.Module):
    """The package's mask decoder with logits [B,3,64,64] that favor three sizes of surroundings of
    the first prompt point, and predicted IoU in (0,1): random weights alone give masks all over the
    image.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.encoder, self.inner = net.prompt_encoder, net.mask_decoder

    def forward(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        logits, iou = self.inner(**inputs)
        place = inputs["sparse_prompt_embeddings"][:, 0] - self.encoder.point_embeddings[1].weight
        likeness = torch.einsum("bd,dhw->bhw", place, self.encoder.get_dense_pe()[0]) * (
            2 / place.shape[1]
        )
        wide = F.interpolate(likeness[:, None], logits.shape[2:], mode="bilinear")
        level = torch.tensor([0.1, 0.35, 0.7]).view(1, 3, 1, 1)
        return 3 * logits.tanh() + 12 * (wide - level), iou.sigmoid()


def sample_image(height: int = 72, width: int = 96, seed: int = 0) -> np.ndarray:
    """Discs of several colors on dark noise, uint8 [H,W,3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = rng.integers(0, 60, (height, width, 3))
    for _ in range(8):
        center_y, center_x, radius = (
            rng.uniform(0, height),
            rng.uniform(0, width),
            rng.uniform(5, 25),
        )
        image[(y - center_y) ** 2 + (x - center_x) ** 2 < radius**2] = rng.integers(0, 255, 3)
    return image.astype(np.uint8)


def smallest_wins(
    masks: list[Any], size: tuple[int, int]
) -> tuple[np.ndarray, list[float], list[float]]:
    """The label map, stability and predicted IoU of the package's masks."""
    owner = np.full(size, -1)
    order = sorted(range(len(masks)), key=lambda i: (-masks[i]["area"], masks[i]["predicted_iou"]))
    for i in order:
        owner[masks[i]["segmentation"]] = i
    kept = [i for i in order if (owner == i).any()]
    segments = np.zeros(size, int)
    for number, i in enumerate(kept, start=1):
        segments[owner == i] = number
    return (
        segments,
        [masks[i]["stability_score"] for i in kept],
        [np.clip(masks[i]["predicted_iou"], 0, 1) for i in kept],
    )


def with_box_and_outside(query: Query) -> Query:
    """The prompt with a box around its points, and all but the first of them off the object."""
    box = (*(query.points_xy.min(0) - 3), *(query.points_xy.max(0) + 4))
    return query._replace(
        points_xy=query.points_xy[:1], outside_xy=query.points_xy[1:], box_xyxy=box
    )
