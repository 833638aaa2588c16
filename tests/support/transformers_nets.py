"""Small networks of the package `transformers` with random weights, and their processors."""

from typing import Any

import torch

KINDS = {"sam": "Sam", "sam_hq": "SamHQ", "sam2": "Sam2", "sam3_tracker": "Sam3Tracker"}
"""Kinds of networks, and how their classes' names begin."""
GRID = 16
"""Side of the coarsest embeddings."""
VIT = {
    "hidden_size": 24,
    "output_channels": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "window_size": 7,
    "global_attn_indexes": [0, 1],
    "num_pos_feats": 16,
}
PYRAMID: dict[str, Any] = {
    "fpn_hidden_size": 32,
    "backbone_feature_sizes": [[4 * GRID, 4 * GRID], [2 * GRID, 2 * GRID], [GRID, GRID]],
}
HIERA = {
    "model_type": "sam2_hiera_det_model",
    "hidden_size": 8,
    "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [8, 16, 32, 64],
    "num_attention_heads_per_stage": [1, 1, 2, 4],
    "global_attention_blocks": [3],
}
SAM3_VIT = {
    "model_type": "sam3_vit_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 14,
    "pretrain_image_size": 112,
    "window_size": 8,
    "global_attn_indexes": [1],
}


def small_net(kind: str) -> tuple[Any, Any]:
    """Return a network in evaluation mode and the processor of its images and prompts; weights are
    so large that masks and predicted IoU differ between prompts.
    """
    import transformers

    torch.manual_seed(0)
    patch = 14 if kind == "sam3_tracker" else 16
    side = GRID * patch
    prompts = {"hidden_size": 32, "image_size": side, "patch_size": patch, "mask_input_channels": 4}
    decoder = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 4}
    decoder |= {"iou_head_hidden_dim": 32} | ({"vit_dim": 24} if kind == "sam_hq" else {})
    square = {"height": side, "width": side}
    vision, images, options = {
        "sam": (VIT | {"image_size": side}, "Sam", {"pad_size": square}),
        "sam_hq": (VIT | {"image_size": side}, "Sam", {"pad_size": square}),
        "sam2": (_pyramid("sam2", HIERA, [side, side]), "Sam2", {}),
        "sam3_tracker": (_pyramid("sam3", SAM3_VIT, side), "Sam3", {}),
    }[kind]
    options = {**options, "size": {"longest_edge": side} if options else square}
    name = KINDS[kind]
    config = getattr(transformers, f"{name}Config")(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
    )
    net = getattr(transformers, f"{name}Model")(config)
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            if parameter.ndim > 1 or key.endswith("bias"):
                parameter.normal_(std=0.3)
    image_processor = getattr(transformers, f"{images}ImageProcessor")(**options)
    target = {"target_size": side} if vision.keys() >= PYRAMID.keys() else {}
    processor = getattr(transformers, f"{name}Processor")(image_processor, **target)
    return net.eval().requires_grad_(False), processor


def _pyramid(family: str, backbone: dict[str, Any], size: Any) -> dict[str, Any]:
    backbone = {**backbone, "image_size": size}
    channels = {"backbone_channel_list": [64, 32, 16, 8]} if family == "sam2" else {}
    kind = f"{family}_vision_model"
    return {"model_type": kind, "backbone_config": backbone, **channels, **PYRAMID}


def as_video(net: Any) -> Any:
    """Return a small network of SAM 2 in the form in which its weights are published: with what
    tracks objects through videos.
    """
    import transformers

    parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    memory = (
        "attention_hidden_size",
        "attention_feed_forward_hidden_size",
        "encoder_hidden_size",
        "fuser_embed_dim",
        "fuser_intermediate_dim",
    )
    options: dict[str, Any] = {part: getattr(net.config, part).to_dict() for part in parts}
    options |= {f"memory_{name}": 32 for name in memory}
    options |= {"mask_downsampler_embed_dim": 32, "memory_encoder_output_channels": 8}
    options |= {"memory_attention_rope_feat_sizes": [GRID, GRID]}
    video = transformers.Sam2VideoModel(transformers.Sam2VideoConfig(**options))
    video.load_state_dict(net.state_dict(), strict=False)
    return video
