"""SAM's automatic mask generation (Kirillov et al., ICCV 2023, appendix B) as one label map: decode
a grid of point prompts, filter, suppress, and let the smallest segment own a pixel.

The masks are those of the package's generator without crops. Only few exist at full size at a time:
low-resolution logits are kept, whose size does not grow with the image's.

The decoder is the package's prompt encoder and mask decoder, its products in a cheaper order: where
4096 image tokens attend to some seven prompt tokens, not the image tokens of every prompt are
projected but the few prompt tokens, by the same weights: q (W x) = (q W) x. Results are equal but
for rounding. Only masks selected by their predicted IoU, which is known first, are upscaled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from segment_anything.utils.amg import (
    batched_mask_to_box,
    build_point_grid,
    calculate_stability_score,
)
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torchvision.ops import nms

MASKS = 3
"""Masks of a prompt (multimask output: whole, part and subpart, the whole mostly last)."""
FLOATS_AT_ONCE = 2**24
"""Size of the largest tensors while masks are upscaled (64 MB in float32)."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which masks stay; the defaults are those of the package's generator.

    pred_iou: least predicted IoU, exclusive, 0 = off; stability: least stability score, 0 = off;
    stability_offset: logit offset of the thresholds that it compares; box_nms: of two masks whose
    boxes' IoU is above it, the one of lower predicted IoU is suppressed.
    """

    pred_iou: float = 0.88
    stability: float = 0.95
    stability_offset: float = 1.0
    box_nms: float = 0.7


class Masks(NamedTuple):
    """n masks: low-resolution logits [n,h,w], predicted IoU [n], stability [n], area [n] in pixels,
    box_xyxy [n,4] (ends inclusive).
    """

    logits: Tensor
    iou: Tensor
    stability: Tensor
    area: Tensor
    box_xyxy: Tensor

    def take(self, indices: Tensor) -> "Masks":
        """Return the masks of these indices, or where a bool [n] is True."""
        return Masks(*(values[indices] for values in self))


class SegmentMap(NamedTuple):
    """segments: int64 [H,W], 0 none, ids 1..S; stability, iou: float32 [S] in [0,1], by id."""

    segments: Tensor
    stability: Tensor
    iou: Tensor


class Prompts(NamedTuple):
    """B prompts of at most P points each, and of boxes if there are any.

    points_xy: [B,P,2] in SAM's input, as the package expects them (it adds half a pixel); labels:
    int [B,P], 1 on the object, 0 off it; padding: bool [B,P], True for points to ignore (the
    package's own padding by label -1 would be attended to, and so change the answer); boxes_xyxy:
    [B,4] in SAM's input, likewise.
    """

    points_xy: Tensor
    labels: Tensor
    padding: Tensor | None = None
    boxes_xyxy: Tensor | None = None


class Attended(NamedTuple):
    """Output of the transformer for B prompts: predicted IoU [B,3] of the masks, mask tokens
    [B,3,D], and image tokens [B,h*w,D].
    """

    iou: Tensor
    tokens: Tensor
    image: Tensor


def segment_everything(
    decoder: "Decoder",
    embeddings: Tensor,
    size: tuple[int, int],
    *,
    points_per_side: int,
    points_per_batch: int,
    filters: Filters,
) -> SegmentMap:
    """Return the map of all segments of an image of `size` (H,W) from its embeddings [1,D,h,w].

    The smallest segment covering a pixel owns it; of equal areas the one with the higher predicted
    IoU. Segments that own no pixel are dropped; ids run from the largest segment to the smallest.
    The generator's filter of boxes near a crop's edge has no effect where the crop is the image.
    """
    height, width = decoder.extent(size)
    points = torch.from_numpy(build_point_grid(points_per_side) * (width, height))
    points = points.to(embeddings.device, non_blocking=True)
    batches = [
        _decode(decoder, embeddings, some, size, filters) for some in points.split(points_per_batch)
    ]
    return _paint(decoder, _suppress(batches, filters.box_nms), size)


def _decode(
    decoder: "Decoder", embeddings: Tensor, points: Tensor, size: tuple[int, int], filters: Filters
) -> Masks:
    """Return the masks of points [b,2] that pass the filters; those of a low predicted IoU are
    never upscaled.
    """
    labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
    attended = decoder.attend(embeddings, Prompts(points[:, None], labels))
    chosen = torch.ones_like(attended.iou, dtype=torch.bool)
    if filters.pred_iou > 0:
        chosen = attended.iou > filters.pred_iou
    at_once = decoder.resize_at_once(size)
    parts = zip(
        decoder.logits(attended, chosen).split(at_once),
        attended.iou[chosen].split(at_once),
        strict=True,
    )
    found = []
    for logits, iou in parts:
        resized = decoder.resize(logits, size)
        stable = calculate_stability_score(resized, 0.0, filters.stability_offset)
        binary = resized > 0
        found.append(Masks(logits, iou, stable, binary.sum((1, 2)), batched_mask_to_box(binary)))
    masks = Masks(*(torch.cat(values) for values in zip(*found, strict=True)))
    return masks.take(masks.stability >= filters.stability) if filters.stability > 0 else masks


def _suppress(batches: Sequence[Masks], box_nms: float) -> Masks:
    """Suppress over all batches, and order by falling predicted IoU; the logits of all masks are
    never copied together.
    """
    _, iou, stable, area, boxes = zip(*batches, strict=True)
    kept = nms(torch.cat(boxes).float(), torch.cat(iou), box_nms)
    every = [logits for batch in batches for logits in batch.logits]
    logits = torch.stack([every[i] for i in kept.tolist()]) if len(kept) else batches[0].logits[:0]
    return Masks(logits, *(torch.cat(values)[kept] for values in (iou, stable, area, boxes)))


def _paint(decoder: "Decoder", masks: Masks, size: tuple[int, int]) -> SegmentMap:
    """Paint the masks over one another, the smallest last; few exist at full size at a time."""
    masks = masks.take(painting_order(masks.area, masks.iou))
    owner = torch.zeros(size, dtype=torch.int64, device=masks.iou.device)
    parts = masks.logits.split(decoder.resize_at_once(size))
    full_size = (mask for part in parts for mask in decoder.resize(part, size) > 0)
    for number, mask in enumerate(full_size, start=1):
        owner.masked_fill_(mask, number)
    owners = owner.unique()
    owners = owners[owners > 0]
    ids = torch.zeros(len(masks.iou) + 1, dtype=torch.int64, device=owner.device)
    ids[owners] = torch.arange(1, len(owners) + 1, device=owner.device)
    kept = masks.take(owners - 1)
    return SegmentMap(ids[owner], kept.stability, kept.iou.clamp(0, 1))


def painting_order(area: Tensor, iou: Tensor) -> Tensor:
    """Return indices [n] from the largest area to the smallest; of equal areas the higher predicted
    IoU comes last, then the lower index.
    """
    order = torch.arange(len(area), device=area.device).flip(0)
    order = order[iou[order].argsort(stable=True)]
    return order[area[order].argsort(stable=True, descending=True)]


class Decoder:
    """The prompt encoder and mask decoder of segment_anything's Sam; holds no image encoder.

    Attributes:
        size: Side of the square input that prompts refer to (1024).
        grid: Height and width of the embeddings (64, 64); logits are four times that.
    """

    def __init__(self, net: Any) -> None:
        self.prompt_encoder, self.mask_decoder = net.prompt_encoder, net.mask_decoder
        self.size: int = net.prompt_encoder.input_image_size[0]
        self.grid: tuple[int, int] = net.prompt_encoder.image_embedding_size

    def attend(self, embeddings: Tensor, prompts: Prompts) -> Attended:
        """Run the transformer on B prompts, with the embeddings [1,D,h,w] of one image for all of
        them, or [B,D,h,w].
        """
        points_xy, labels, padding, boxes_xyxy = prompts
        sparse, _ = self.prompt_encoder(points=(points_xy, labels), boxes=boxes_xyxy, masks=None)
        head = self.mask_decoder
        fixed = torch.cat([head.iou_token.weight, head.mask_tokens.weight])
        tokens = torch.cat([fixed.expand(len(sparse), -1, -1), sparse], dim=1)
        ignored = None
        if padding is not None:  # the package's prompt encoder adds corners or a token of its own
            ignored = F.pad(padding, (len(fixed), sparse.shape[1] - padding.shape[1]))
        image = embeddings.flatten(2).transpose(1, 2) + self.prompt_encoder.no_mask_embed.weight
        position = self.prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2)
        tokens, image = _two_way(head.transformer, tokens, image, position, ignored)
        iou = head.iou_prediction_head(tokens[:, 0])[:, 1:]
        return Attended(iou.float(), tokens[:, 2 : 2 + MASKS], image)

    def logits(self, attended: Attended, chosen: Tensor) -> Tensor:
        """Return low-resolution logits [n,4h,4w] (float32) of the n masks where `chosen` (bool
        [B,3]) is True, prompt by prompt.
        """
        prompts = chosen.any(1).nonzero()[:, 0]
        floats = 16 * self.grid[0] * self.grid[1]
        floats *= self.mask_decoder.output_upscaling[3].out_channels
        parts = prompts.split(max(1, FLOATS_AT_ONCE // floats))
        return torch.cat([self._logits(attended, chosen, some) for some in parts])

    def _logits(self, attended: Attended, chosen: Tensor, prompts: Tensor) -> Tensor:
        """Return the logits of some prompts [b]; both transposed convolutions have kernel 2 and
        stride 2, so they are products per token.
        """
        first, norm, activation, second, last = self.mask_decoder.output_upscaling
        x = _upscale(first, attended.image[prompts])
        x = activation(F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps))
        x = last(_upscale(second, x))
        mlps = self.mask_decoder.output_hypernetworks_mlps[1:]
        kernels = torch.stack([mlp(attended.tokens[prompts, i]) for i, mlp in enumerate(mlps)], 1)
        logits = (kernels @ x.transpose(1, 2))[chosen[prompts]]
        h, w = self.grid
        children = logits.float().view(len(logits), h, w, 2, 2, 2, 2)
        return children.permute(0, 1, 3, 5, 2, 4, 6).reshape(len(logits), 4 * h, 4 * w)

    def resize(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize logits [n,4h,4w] to [n,H,W], by the package's two bilinear steps, bit for bit.

        The first step omits what would be cut off as padding.
        """
        if len(logits) == 0:  # interpolate refuses it
            return logits.new_zeros(0, *size)
        rows, columns = self.extent(size)
        factor = self.size // (4 * self.grid[0])
        height, width = (
            min(side, part // factor + 2)
            for side, part in zip(logits.shape[1:], (rows, columns), strict=True)
        )
        enlarged = (height * factor, width * factor)
        part = logits[None, :, :height, :width]
        whole = F.interpolate(part, enlarged, mode="bilinear", align_corners=False)
        whole = whole[..., :rows, :columns]
        return F.interpolate(whole, size, mode="bilinear", align_corners=False)[0]

    def resize_at_once(self, size: tuple[int, int]) -> int:
        """Return how many masks to resize together so that memory is bounded for any image size."""
        return max(1, FLOATS_AT_ONCE // max(self.size**2, size[0] * size[1]))

    def extent(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of an image of `size` (H,W) in SAM's input."""
        return ResizeLongestSide.get_preprocess_shape(*size, self.size)


def _two_way(
    transformer: Any, prompt: Tensor, image: Tensor, position: Tensor, ignored: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run SAM's two-way transformer on prompt tokens [B,T,D] and image tokens [1 or B,n,D]."""
    tokens = prompt
    for layer in transformer.layers:
        placed = tokens if layer.skip_first_layer_pe else tokens + prompt
        update = _self_attention(layer.self_attn, placed, tokens, ignored)
        tokens = layer.norm1(update if layer.skip_first_layer_pe else tokens + update)
        where, attention = image + position, layer.cross_attn_token_to_image
        tokens = layer.norm2(tokens + _tokens_to_image(attention, tokens + prompt, where, image))
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        attention = layer.cross_attn_image_to_token
        update = _image_to_tokens(attention, where, tokens + prompt, tokens, ignored)
        image = layer.norm4(image + update)
    attention, where = transformer.final_attn_token_to_image, image + position
    update = _tokens_to_image(attention, tokens + prompt, where, image)
    return transformer.norm_final_attn(tokens + update), image


def _self_attention(
    attention: Any, where: Tensor, tokens: Tensor, ignored: Tensor | None
) -> Tensor:
    q, k = (_heads(p(where), attention) for p in (attention.q_proj, attention.k_proj))
    v = _heads(attention.v_proj(tokens), attention)
    mask = None if ignored is None else ~ignored[:, None, None, :]
    update = F.scaled_dot_product_attention(q, k, v, mask)
    return attention.out_proj(update.transpose(1, 2).flatten(2))


def _tokens_to_image(attention: Any, queries: Tensor, where: Tensor, image: Tensor) -> Tensor:
    """Attend from prompt tokens [B,T,D] to image tokens; the bias of the keys is left out, as
    softmax cancels it.
    """
    B, T, D = queries.shape
    q = _heads(attention.q_proj(queries), attention)
    q = q / q.shape[-1] ** 0.5
    projected = (q @ _per_head(attention.k_proj.weight, attention)).flatten(1, 2)
    weights = _matmul_shared(projected, where.transpose(1, 2)).softmax(-1)
    attended = _matmul_shared(weights, image).view(B, attention.num_heads, T, D)
    values = attended @ _per_head(attention.v_proj.weight, attention).transpose(1, 2)
    return attention.out_proj(values.transpose(1, 2).flatten(2) + attention.v_proj.bias)


def _image_to_tokens(
    attention: Any, where: Tensor, keys: Tensor, tokens: Tensor, ignored: Tensor | None
) -> Tensor:
    """Attend from image tokens to the prompt tokens [B,T,D]; return their update [B,n,D]."""
    B, T, _ = keys.shape
    k = _heads(attention.k_proj(keys), attention)
    k = k / k.shape[-1] ** 0.5
    projected = (k @ _per_head(attention.q_proj.weight, attention)).flatten(1, 2)
    bias = (k * attention.q_proj.bias.view(1, attention.num_heads, 1, -1)).sum(-1)
    if ignored is not None:
        bias = bias.masked_fill(ignored[:, None, :], -torch.inf)
    scores = _matmul_shared(projected, where.transpose(1, 2))
    scores = scores.view(B, attention.num_heads, T, -1) + bias[..., None]
    weights = scores.softmax(2).flatten(1, 2)
    v = _heads(attention.v_proj(tokens), attention)
    values = v @ _per_head(attention.out_proj.weight.T, attention)
    # the weights of each head sum to one
    values = values + attention.out_proj.bias / attention.num_heads
    return weights.transpose(1, 2) @ values.flatten(1, 2)


def _matmul_shared(left: Tensor, right: Tensor) -> Tensor:
    """Return [B,m,a] @ [1 or B,a,b]; one image's tokens for all prompts are one large product."""
    if len(right) == 1:
        return (left.flatten(0, 1) @ right[0]).view(len(left), left.shape[1], -1)
    return left @ right


def _heads(x: Tensor, attention: Any) -> Tensor:
    """Reshape [B,T,I] to [B,heads,T,I/heads]."""
    return x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)


def _per_head(weight: Tensor, attention: Any) -> Tensor:
    """Reshape the weight [I,D] of a projection to heads to [heads,I/heads,D]."""
    return weight.unflatten(0, (attention.num_heads, -1))


def _upscale(convolution: Any, x: Tensor) -> Tensor:
    """Apply a transposed convolution of kernel and stride 2 to tokens [B,n,C]: [B,4n,c], the 2x2
    children of a token one after another.
    """
    weight = convolution.weight.permute(0, 2, 3, 1).flatten(1)
    children = x @ weight + convolution.bias.repeat(4)
    return children.view(len(x), 4 * x.shape[1], convolution.out_channels)
