"""SAM's image encoder: the package's ViT, its global attention taken one head at a time."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError


class SamError(UserError):
    """SAM cannot be had or cannot do what is asked; the message names the file or parameter."""


def encode(net: Any, image: np.ndarray) -> Tensor:
    """Embeddings [1,D,h,w] of a uint8 RGB image [H,W,3], on the device of `net` (segment_anything's
    Sam).

    The image is resized to SAM's longest side and padded below and to the right as the package does
    it; the whole padded grid comes back. ViT-H/L/B: D 256, h = w = 64 (Kirillov et al., Segment
    Anything, 2023, appendix A). Raises SamError for an image so narrow that nothing is left of its
    shorter side.
    """
    from segment_anything.utils.transforms import ResizeLongestSide

    height, width = image.shape[:2]
    side = net.image_encoder.img_size
    if min(ResizeLongestSide.get_preprocess_shape(height, width, side)) == 0:
        raise SamError(
            f"{width} x {height} pixels are too narrow for SAM, whose input is {side} wide; cut the image, take it off the list "
            "or set segments.backend: superpixels"
        )
    resized = ResizeLongestSide(side).apply_image(image)
    pixels = torch.from_numpy(resized).to(net.device, non_blocking=True).permute(2, 0, 1)[None]
    return _vit(net.image_encoder, net.preprocess(pixels))


def _vit(encoder: Any, pixels: Tensor) -> Tensor:
    x = encoder.patch_embed(pixels)
    if encoder.pos_embed is not None:
        x = x + encoder.pos_embed
    for block in encoder.blocks:
        x = block(x) if block.window_size else _global_block(block, x)
    return encoder.neck(x.permute(0, 3, 1, 2))


def _global_block(block: Any, x: Tensor) -> Tensor:
    x = x + _attention(block.attn, block.norm1(x))
    return x + block.mlp(block.norm2(x))


def _attention(attention: Any, x: Tensor) -> Tensor:
    """Attention of all [B,h,w,C] tokens to all, with decomposed relative positions (Li et al.,
    MViTv2, eq. 4).

    The scores of all heads together take 0.8 GB (ViT-B) and three such tensors at once; one head's
    stay small.
    """
    B, H, W, _ = x.shape
    qkv = attention.qkv(x).reshape(B, H * W, 3, attention.num_heads, -1).permute(2, 3, 0, 1, 4)
    heads = []
    for q, k, v in zip(*qkv, strict=True):
        scores = (q * attention.scale) @ k.transpose(-2, -1)
        if attention.use_rel_pos:
            _add_relative_positions(attention, scores.view(B, H, W, H, W), q.reshape(B, H, W, -1))
        heads.append(scores.softmax(-1) @ v)
    return attention.proj(torch.cat(heads, -1).view(B, H, W, -1))


def _add_relative_positions(attention: Any, scores: Tensor, q: Tensor) -> None:
    """Add to scores [B,h,w,h,w], in place, what queries [B,h,w,c] have to the distance of rows and
    of columns.
    """
    from segment_anything.modeling.image_encoder import get_rel_pos

    H, W = q.shape[1:3]
    scores += torch.einsum("bhwc,hkc->bhwk", q, get_rel_pos(H, H, attention.rel_pos_h))[
        ..., :, None
    ]
    scores += torch.einsum("bhwc,wkc->bhwk", q, get_rel_pos(W, W, attention.rel_pos_w))[
        ..., None, :
    ]
