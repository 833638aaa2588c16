"""SAM's prompt encoder and mask decoder for many point prompts: the published network, its products
in a cheaper order.

A decoder attends 4096 image tokens to some seven prompt tokens. Where the package projects all
image tokens of every prompt to queries, keys and values, the few prompt tokens are projected
instead, by the same weights: q (W x) = (q W) x. Results are equal but for rounding. Masks are
upscaled only for those that were chosen by their predicted IoU, which is known before.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MASKS = 3
"""Masks a prompt gets (multimask output: whole, part, subpart)."""

FLOATS_AT_ONCE = 2**24
"""Size of the largest tensors made while masks are upscaled (64 MB in float32)."""


class Attended(NamedTuple):
    """What the decoder's transformer made of B prompts.

    iou: predicted IoU [B,3] of the masks; tokens: mask tokens [B,3,D]; image: image tokens
    [B,h*w,D].
    """

    iou: Tensor
    tokens: Tensor
    image: Tensor


class Decoder:
    """The prompt encoder and mask decoder of `net`, segment_anything's Sam; they need no image
    encoder.

    size: side of the square input that prompts are given in (1024); grid: height and width of the
    embeddings (64).
    """

    def __init__(self, net: Any) -> None:
        self.prompt_encoder, self.mask_decoder = net.prompt_encoder, net.mask_decoder
        self.size: int = net.prompt_encoder.input_image_size[0]
        self.grid: tuple[int, int] = net.prompt_encoder.image_embedding_size

    def attend(
        self, embeddings: Tensor, points_xy: Tensor, labels: Tensor, padding: Tensor | None = None
    ) -> Attended:
        """Run the transformer on prompts of points.

        embeddings: [1,D,h,w] of one image for all prompts, or [B,D,h,w]; points_xy: [B,P,2] in
        SAM's input, as the package takes them (it adds half a pixel); labels: int [B,P], 1 on the
        object; padding: bool [B,P], True for points that are none. The package's own padding by
        label -1 would be attended to, and so change the answer; padding here leaves no trace.
        """
        sparse, _ = self.prompt_encoder(points=(points_xy, labels), boxes=None, masks=None)
        head = self.mask_decoder
        fixed = torch.cat([head.iou_token.weight, head.mask_tokens.weight])
        tokens = torch.cat([fixed.expand(len(sparse), -1, -1), sparse], dim=1)
        ignored = None
        if padding is not None:  # the package's prompt encoder adds one token of its own at the end
            ignored = F.pad(F.pad(padding, (0, 1)), (len(fixed), 0))
        image = embeddings.flatten(2).transpose(1, 2) + self.prompt_encoder.no_mask_embed.weight
        position = self.prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2)
        tokens, image = _two_way(head.transformer, tokens, image, position, ignored)
        iou = head.iou_prediction_head(tokens[:, 0])[:, 1:]
        return Attended(iou.float(), tokens[:, 2 : 2 + MASKS], image)

    def logits(self, attended: Attended, chosen: Tensor) -> Tensor:
        """Low-resolution logits [n,4h,4w] (float32) of the masks that `chosen` (bool [B,3], n of
        them True) names, prompt by prompt.
        """
        prompts = chosen.any(1).nonzero()[:, 0]
        step = max(1, FLOATS_AT_ONCE // (self.grid[0] * self.grid[1] * self._upscaled_channels))
        return torch.cat([self._logits(attended, chosen, some) for some in prompts.split(step)])

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """(D,h,w) of an image's embeddings."""
        return self.prompt_encoder.embed_dim, *self.grid

    @property
    def low_resolution(self) -> tuple[int, int]:
        """Height and width of the logits."""
        return 4 * self.grid[0], 4 * self.grid[1]

    @property
    def _upscaled_channels(self) -> int:
        return 16 * self.mask_decoder.output_upscaling[3].out_channels

    def _logits(self, attended: Attended, chosen: Tensor, prompts: Tensor) -> Tensor:
        """The same of some prompts [b]; both transposed convolutions have kernel 2 and stride 2, so
        they are products per token.
        """
        first, norm, activation, second, last = self.mask_decoder.output_upscaling
        x = _spread(first, attended.image[prompts])
        x = activation(F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps))
        x = last(_spread(second, x))
        mlps = self.mask_decoder.output_hypernetworks_mlps[1:]
        kernels = torch.stack([mlp(attended.tokens[prompts, i]) for i, mlp in enumerate(mlps)], 1)
        logits = (kernels @ x.transpose(1, 2))[chosen[prompts]]
        h, w = self.grid
        children = logits.float().view(len(logits), h, w, 2, 2, 2, 2)
        return children.permute(0, 1, 3, 5, 2, 4, 6).reshape(len(logits), *self.low_resolution)

    def resize(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits [n,4h,4w] at the image's size [n,H,W], by the package's two bilinear steps, bit
        for bit.

        The first step is left out where its result would be cut off as padding.
        """
        if len(logits) == 0:  # interpolate refuses it
            return logits.new_zeros(0, *size)
        rows, columns = self.extent(size)
        factor = self.size // self.low_resolution[0]
        height, width = (
            min(side, part // factor + 2)
            for side, part in zip(logits.shape[1:], (rows, columns), strict=True)
        )
        part = logits[None, :, :height, :width]
        whole = F.interpolate(
            part, (height * factor, width * factor), mode="bilinear", align_corners=False
        )
        return F.interpolate(
            whole[..., :rows, :columns], size, mode="bilinear", align_corners=False
        )[0]

    def resize_at_once(self, size: tuple[int, int]) -> int:
        """How many masks to resize together so that memory stays bounded for any size of image."""
        return max(1, FLOATS_AT_ONCE // max(self.size**2, size[0] * size[1]))

    def extent(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width that an image of `size` (H,W) takes in SAM's input."""
        from segment_anything.utils.transforms import ResizeLongestSide

        return ResizeLongestSide.get_preprocess_shape(*size, self.size)


def stability(logits: Tensor, offset: float) -> Tensor:
    """SAM's stability score [n] of logits [n,H,W]: IoU of the masks at thresholds +offset and
    -offset; 0/0 is NaN (appendix B).
    """
    inner = (logits > offset).sum((1, 2), dtype=torch.int32)
    outer = (logits > -offset).sum((1, 2), dtype=torch.int32)
    return inner / outer


def _two_way(
    transformer: Any, prompt: Tensor, image: Tensor, position: Tensor, ignored: Tensor | None
) -> tuple[Tensor, Tensor]:
    """SAM's two-way transformer on prompt tokens [B,T,D] and image tokens [1 or B,n,D]."""
    tokens = prompt
    for layer in transformer.layers:
        placed = tokens if layer.skip_first_layer_pe else tokens + prompt
        looked = _among_tokens(layer.self_attn, placed, tokens, ignored)
        tokens = layer.norm1(looked if layer.skip_first_layer_pe else tokens + looked)
        where = image + position
        tokens = layer.norm2(
            tokens
            + _tokens_to_image(layer.cross_attn_token_to_image, tokens + prompt, where, image)
        )
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        looked = _image_to_tokens(
            layer.cross_attn_image_to_token, where, tokens + prompt, tokens, ignored
        )
        image = layer.norm4(image + looked)
    looked = _tokens_to_image(
        transformer.final_attn_token_to_image, tokens + prompt, image + position, image
    )
    return transformer.norm_final_attn(tokens + looked), image


def _among_tokens(attention: Any, where: Tensor, tokens: Tensor, ignored: Tensor | None) -> Tensor:
    q, k = (_heads(p(where), attention) for p in (attention.q_proj, attention.k_proj))
    v = _heads(attention.v_proj(tokens), attention)
    mask = None if ignored is None else ~ignored[:, None, None, :]
    return attention.out_proj(
        F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)
    )


def _tokens_to_image(attention: Any, queries: Tensor, where: Tensor, image: Tensor) -> Tensor:
    """Prompt tokens [B,T,D] look at image tokens; the bias of the keys is left out, for softmax
    does not see it.
    """
    B, T, D = queries.shape
    q = _heads(attention.q_proj(queries), attention) / _scale(attention)
    wanted = (q @ _per_head(attention.k_proj.weight, attention)).flatten(1, 2)
    weights = _times_shared(wanted, where.transpose(1, 2)).softmax(-1)
    seen = _times_shared(weights, image).view(B, attention.num_heads, T, D)
    values = seen @ _per_head(attention.v_proj.weight, attention).transpose(1, 2)
    return attention.out_proj(values.transpose(1, 2).flatten(2) + attention.v_proj.bias)


def _image_to_tokens(
    attention: Any, where: Tensor, keys: Tensor, tokens: Tensor, ignored: Tensor | None
) -> Tensor:
    """Image tokens look at the prompt tokens [B,T,D]; returns what is to be added to them, [B,n,D]."""
    B, T, _ = keys.shape
    k = _heads(attention.k_proj(keys), attention) / _scale(attention)
    wanted = (k @ _per_head(attention.q_proj.weight, attention)).flatten(1, 2)
    bias = (k * attention.q_proj.bias.view(1, attention.num_heads, 1, -1)).sum(-1)
    if ignored is not None:
        bias = bias.masked_fill(ignored[:, None, :], -torch.inf)
    scores = _times_shared(wanted, where.transpose(1, 2)).view(B, attention.num_heads, T, -1)
    weights = (scores + bias[..., None]).softmax(2).flatten(1, 2)
    v = _heads(attention.v_proj(tokens), attention)
    given = v @ _per_head(attention.out_proj.weight.T, attention)
    given = given + attention.out_proj.bias / attention.num_heads  # each head's weights sum to one
    return weights.transpose(1, 2) @ given.flatten(1, 2)


def _times_shared(left: Tensor, right: Tensor) -> Tensor:
    """[B,m,a] @ [1 or B,a,b]; one image's tokens for all prompts make one large product."""
    if len(right) == 1:
        return (left.flatten(0, 1) @ right[0]).view(len(left), left.shape[1], -1)
    return left @ right


def _heads(x: Tensor, attention: Any) -> Tensor:
    """[B,T,I] to [B,heads,T,I/heads]."""
    return x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)


def _per_head(weight: Tensor, attention: Any) -> Tensor:
    """Weight [I,D] of a projection to heads as [heads,I/heads,D]."""
    return weight.unflatten(0, (attention.num_heads, -1))


def _scale(attention: Any) -> float:
    """What the package divides scores by."""
    return (attention.internal_dim // attention.num_heads) ** 0.5


def _spread(convolution: Any, x: Tensor) -> Tensor:
    """Transposed convolution of kernel and stride 2 on tokens [B,n,C]: [B,4n,c], the 2x2 children
    of a token one after another.
    """
    weight = convolution.weight.permute(0, 2, 3, 1).flatten(1)
    children = x @ weight + convolution.bias.repeat(4)
    return children.view(len(x), 4 * x.shape[1], convolution.out_channels)
