"""SAM (Kirillov et al., Segment Anything, ICCV 2023) as a segmenter, and as what S2C asks with points while it trains.

net = load_sam("vit_h", "sam_vit_h_4b8939.pth", "", device)
record = Everything(net, embeddings=True).segment(image)
answers = SamPrompter(net).prompt([Query(record, points_xy)])
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.segmenters.prompting import Answer, Query
from pipeline.segmenters.sam_decoder import MASKS, Decoder, stability
from pipeline.segmenters.sam_encoder import encode
from pipeline.segmenters.sam_everything import Filters, segment_everything
from pipeline.segmenters.sam_network import SamError, autocast, load_sam
from pipeline.store import Record

__all__ = ["Everything", "SamPrompter", "load_sam"]

BATCH = {"cpu": 8, "cuda": 64}
"""Prompts that go through the decoder together; on a CPU larger batches fall out of the cache."""


class Everything:
    """Segments everything in a picture, on the device of `net`.

    net: segment_anything's Sam, see load_sam; precision: dtype of autocast, None or float32 for none; points_per_side: n of the
    n x n grid of prompts; points_per_batch: prompts decoded together, 0 = what suits the device, changes speed and memory alone;
    embeddings: whether records hold them (2 MiB a picture), for SamPrompter; the others: see Filters.
    """

    def __init__(
        self,
        net: Any,
        *,
        precision: torch.dtype | None = None,
        points_per_side: int = 32,
        points_per_batch: int = 0,
        pred_iou: float = 0.88,
        stability: float = 0.95,
        stability_offset: float = 1.0,
        box_nms: float = 0.7,
        min_area: int = 0,
        embeddings: bool = False,
    ) -> None:
        if MASKS * points_per_side**2 >= 2**16:
            raise SamError(
                f"segments.sam.points_per_side: {points_per_side} gives more masks than a map can number, use 147 at most"
            )
        self.net, self.decoder = net, Decoder(net)
        self.precision = precision
        self.points_per_side = points_per_side
        self.points_per_batch = points_per_batch or BATCH[net.device.type]
        self.filters = Filters(pred_iou, stability, stability_offset, box_nms, min_area)
        self.embeddings = embeddings

    @torch.inference_mode()
    def segment(self, image: np.ndarray) -> Record:
        """The record of a uint8 RGB picture [H,W,3]: layout `segments` of pipeline/store.py.

        segments: u2 [H,W], 0 = none, ids 1..S; stability, iou: f4 [S]; embeddings: f2 [D,h,w] of the whole padded square, or (0,0,0).
        The smallest segment that covers a pixel owns it (S2C, section 3.2; its published code lets the highest predicted IoU win).
        """
        with autocast(self.net.device, self.precision):
            embeddings = encode(self.net, image)
            found = segment_everything(
                self.decoder,
                embeddings,
                (image.shape[0], image.shape[1]),
                points_per_side=self.points_per_side,
                points_per_batch=self.points_per_batch,
                filters=self.filters,
            )
        kept = embeddings[0] if self.embeddings else embeddings.new_zeros(0, 0, 0)
        return {
            "segments": found.segments.cpu().numpy().astype(np.uint16),
            "stability": found.stability.cpu().numpy(),
            "iou": found.iou.cpu().numpy(),
            "embeddings": kept.half().cpu().numpy(),
        }


class SamPrompter:
    """Answers points with masks from the embeddings of stored records; holds SAM's decoder alone, not its picture encoder.

    Of the three masks of a prompt the decoder's predicted IoU chooses one, as in SAM. The published S2C code always takes the third
    and ignores the prediction. stability_offset: in logits, of SAM's stability score, which the paper names and that code replaces by
    raw logits.
    """

    def __init__(
        self,
        net: Any,
        *,
        precision: torch.dtype | None = None,
        prompts_per_batch: int = 0,
        stability_offset: float = 1.0,
    ) -> None:
        self.decoder = Decoder(net)
        self.device, self.precision = net.device, precision
        self.prompts_per_batch = prompts_per_batch or BATCH[net.device.type]
        self.stability_offset = stability_offset

    @torch.no_grad()
    def prompt(self, queries: Sequence[Query]) -> list[Answer]:
        """One mask [H,W] and its stability for the points of each query, all of them points of one prompt; in their order.

        Queries of several pictures share network calls; neither they nor the number of their points touch one another's answers.
        Raises SamError for a record without embeddings, or with those of another network.
        """
        size = self.prompts_per_batch
        parts = [queries[start : start + size] for start in range(0, len(queries), size)]
        return [answer for part in parts for answer in self._answers(part)]

    def logits(self, queries: Sequence[Query]) -> Tensor:
        """Low-resolution logits [B,4h,4w] of the queries' masks, from one call of the network."""
        points, padding = self._points(queries)
        embeddings = self._embeddings(queries)
        with autocast(self.device, self.precision):
            attended = self.decoder.attend(embeddings, points, (~padding).int(), padding)
            best = F.one_hot(attended.iou.argmax(1), MASKS).bool()
            return self.decoder.logits(attended, best)

    def _answers(self, queries: Sequence[Query]) -> list[Answer]:
        masks, scores = [], []
        for query, logits in zip(queries, self.logits(queries), strict=True):
            whole = self.decoder.resize(logits[None], query.record["segments"].shape)
            masks.append(whole[0] > 0)
            scores.append(stability(whole, self.stability_offset)[0])
        stable = torch.stack(scores).nan_to_num().tolist()  # an empty mask has no stability
        return [Answer(mask, score) for mask, score in zip(masks, stable, strict=True)]

    def _points(self, queries: Sequence[Query]) -> tuple[Tensor, Tensor]:
        """Points [B,P,2] in SAM's input, and where [B,P] there is none.

        The prompt encoder adds half a pixel of its input to what it takes for pixel indices; a query's points have it already.
        """
        longest = max(len(query.points_xy) for query in queries)
        points = np.zeros((len(queries), longest, 2))
        padding = np.ones((len(queries), longest), bool)
        for row, empty, query in zip(points, padding, queries, strict=True):
            height, width = query.record["segments"].shape
            rows, columns = self.decoder.extent((height, width))
            row[: len(query.points_xy)] = query.points_xy * (columns / width, rows / height) - 0.5
            empty[: len(query.points_xy)] = False
        return (
            torch.from_numpy(points).to(self.device, non_blocking=True),
            torch.from_numpy(padding).to(self.device, non_blocking=True),
        )

    def _embeddings(self, queries: Sequence[Query]) -> Tensor:
        """Embeddings [B,D,h,w] float32, or [1,D,h,w] if all ask about one picture; each picture's go to the device once."""
        records = {id(query.record): query.record for query in queries}
        shape = self.decoder.embedding_shape
        for record in records.values():
            if record["embeddings"].shape != shape:
                raise SamError(
                    f"segments.embeddings: {record['embeddings'].shape} stored, {shape} needed; set it to true, keep "
                    f"segments.sam.model, and run `dvc repro segments`"
                )
        stacked = torch.from_numpy(np.stack([record["embeddings"] for record in records.values()]))
        embeddings = stacked.to(self.device, non_blocking=True).float()
        places = {key: place for place, key in enumerate(records)}
        if len(places) == 1:
            return embeddings
        return embeddings[[places[id(query.record)] for query in queries]]
