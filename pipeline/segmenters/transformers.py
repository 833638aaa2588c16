"""Segment Anything in all its versions through the package `transformers`, from a folder of
safetensors: SAM, SAM-HQ (Ke et al., NeurIPS 2023), SAM 2 and 2.1 (Ravi et al., ICLR 2025), and the
tracker of SAM 3 (Carion et al., 2025).

    sam = load_transformers_sam("sam2.1-hiera-tiny", device)
    record = AutomaticMaskGenerator(sam, embeddings=True).segment(image)
    answers = SamPrompter(sam, "best").prompt([Query(record, points_xy)])

The image processor is that of the folder. Versions differ in three ways. SAM and SAM-HQ keep the
image's aspect ratio and pad it; the later ones stretch it to a square. SAM-HQ's decoder also reads
features of the first global block of its encoder, those of the later versions finer features; all
are stored at the coarsest grid, finer ones as channels. SAM-HQ orders the masks of a prompt by
predicted IoU, so that none is known to be the whole object's.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.segmenters.sam import RULES, Sam, SamError
from pipeline.segmenters.sam_amg import Attended, Prompts


def load_transformers_sam(checkpoint: str | Path, device: torch.device) -> "TransformersSam":
    """Load a network and its image processor from a folder as save_pretrained writes it.

    Raises:
        SamError: The package or a file is missing, or the weights do not fit the network.
    """
    try:
        from transformers import AutoImageProcessor, AutoModelForMaskGeneration
    except ImportError as error:
        raise SamError(
            "segments.backend: transformers needs a package that is not installed; install it with "
            "`pip install -c constraints.txt -e '.[transformers]'`"
        ) from error
    where = f"segments.checkpoint: {checkpoint}"
    if not (Path(checkpoint) / "config.json").is_file():
        raise SamError(
            f"{where} is not a folder with config.json, preprocessor_config.json and "
            "model.safetensors; get one, for example, by `hf download facebook/sam2.1-hiera-tiny "
            "--local-dir FOLDER`"
        )
    try:
        processor = AutoImageProcessor.from_pretrained(checkpoint, local_files_only=True)
        net, found = AutoModelForMaskGeneration.from_pretrained(
            checkpoint,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            local_files_only=True,
        )
    except Exception as error:  # the package raises many kinds, of its own and of json
        raise SamError(f"{where} cannot be loaded; download the folder again: {error}") from error
    if absent := sorted(found["missing_keys"]):
        raise SamError(f"{where} lacks weights, such as {absent[0]}; download the folder again")
    return TransformersSam(net.eval().requires_grad_(False).to(device), processor)


class TransformersSam(Sam):
    """A network of transformers in the place of segment_anything's.

    Args:
        net: SamModel, SamHQModel, Sam2Model or Sam3TrackerModel.
        processor: The image processor that belongs to it.
    """

    def __init__(self, net: Any, processor: Any) -> None:
        self.net, self.processor = net, processor
        encoder, decoder = net.prompt_encoder, net.mask_decoder
        self.size, self.grid = encoder.input_image_size, tuple(encoder.image_embedding_size)
        self.stretched, self.fused = hasattr(decoder, "conv_s0"), hasattr(decoder, "hq_token")
        self.rules = ("best",) if self.fused else RULES
        self.layout = [(encoder.hidden_size, 1)]
        """Channels of each feature map and how much finer than the grid it is."""
        if self.stretched:
            self.layout = [(decoder.conv_s0.out_channels, 4), (decoder.conv_s1.out_channels, 2)]
            self.layout.append((encoder.hidden_size, 1))
        elif self.fused:
            self.layout.append((decoder.compress_vit_conv1.in_channels, 1))

    def encode(self, image: np.ndarray) -> Tensor:
        """Return the embeddings [1,D,h,w] of a uint8 RGB image [H,W,3]: all maps that the decoder
        reads. SAM: D 256, SAM-HQ ViT-H: 1536, SAM 2.1: 1024, at h = w = 64; SAM 3: 1024, 72.
        """
        self.check(image)
        inputs = self.processor(
            images=image, input_data_format="channels_last", return_tensors="pt"
        )
        maps = self.net.get_image_embeddings(inputs["pixel_values"].to(self.device))
        if self.fused:
            maps = [maps[0], maps[1][0].permute(0, 3, 1, 2)]
        maps = maps if isinstance(maps, list) else [maps]
        factors = [factor for _, factor in self.layout]
        parts = [F.pixel_unshuffle(part, n) for part, n in zip(maps, factors, strict=True)]
        return torch.cat(parts, 1)

    def attend(self, embeddings: Tensor, prompts: Prompts) -> Attended:
        """Run the network's decoder as Decoder.attend does; the low-resolution logits [B,3,4h,4w]
        take the place of tokens. Prompts of as many points are run together: what the package pads
        with would be attended to.
        """
        points_xy, labels, padding, boxes_xyxy = prompts
        known = torch.ones_like(labels) if padding is None else ~padding
        counts = known.sum(1).tolist()
        rows = {n: [row for row, count in enumerate(counts) if count == n] for n in set(counts)}
        parts = [
            self._decode(
                embeddings[some] if len(embeddings) > 1 else embeddings,
                points_xy[some, :n],
                labels[some, :n],
                None if boxes_xyxy is None else boxes_xyxy[some],
            )
            for n, some in rows.items()
        ]
        order = np.argsort([row for some in rows.values() for row in some])
        iou, logits = (torch.cat(part)[order] for part in zip(*parts, strict=True))
        return Attended(iou, logits, logits)

    def _decode(
        self, embeddings: Tensor, points_xy: Tensor, labels: Tensor, boxes_xyxy: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return predicted IoU [B,3] and logits [B,3,4h,4w] of prompts of P points [B,P,2] with
        their labels [B,P], and of boxes [B,4] or none, with embeddings of one image or of B.
        """
        sizes = [channels * factor**2 for channels, factor in self.layout]
        maps = [
            F.pixel_shuffle(part, factor)
            for part, (_, factor) in zip(embeddings.split(sizes, 1), self.layout, strict=True)
        ]
        axis = 0 if len(embeddings) == 1 else 1
        features: dict[str, Any] = {"image_embeddings": maps if self.stretched else maps[0]}
        if boxes_xyxy is not None:
            features["input_boxes"] = boxes_xyxy.unsqueeze(axis).float()
        if self.fused:
            features["intermediate_embeddings"] = [maps[1].permute(0, 2, 3, 1)]
        features["input_points"] = points_xy.unsqueeze(axis).float()
        features["input_labels"] = labels.unsqueeze(axis)
        found = self.net(multimask_output=True, **features)
        return found.iou_scores.flatten(0, 1).float(), found.pred_masks.flatten(0, 1).float()

    def logits(self, attended: Attended, chosen: Tensor) -> Tensor:
        """Return the low-resolution logits [n,4h,4w] of the masks where `chosen` is True."""
        return attended.tokens[chosen]

    def resize(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize logits [n,4h,4w] to [n,H,W], as the package does."""
        if not self.stretched or len(logits) == 0:
            return super().resize(logits, size)
        return F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]

    def extent(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of an image of `size` (H,W) in the network's input."""
        return (self.size, self.size) if self.stretched else super().extent(size)
