"""SAM (Kirillov et al., Segment Anything, ICCV 2023) as a segmenter, and as what S2C asks with
points while it trains.

net = load_sam("vit_h", "sam_vit_h_4b8939.pth", "", device)
record = Everything(net, embeddings=True).segment(image)
answers = SamPrompter(net).prompt([Query(record, points_xy)])

SAM's network from an official or fine-tuned checkpoint: the file is checked, nothing is downloaded,
no pickle is run.

The package `segment-anything` is needed only where a network is made or used, so everything here
imports without it.
"""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.core.artifacts import Record
from pipeline.core.weights import WeightsError, load_checkpoint
from pipeline.segmenters.prompting import Answer, Query
from pipeline.segmenters.sam_decoder import MASKS, Decoder, stability
from pipeline.segmenters.sam_encoder import SamError, encode
from pipeline.segmenters.sam_everything import Filters, segment_everything


class Official(NamedTuple):
    """A published checkpoint: file name and SHA-256."""

    name: str
    sha256: str

    @property
    def address(self) -> str:
        """Where it is published."""
        return f"https://dl.fbaipublicfiles.com/segment_anything/{self.name}"


CHECKPOINTS = {
    "vit_h": Official(
        "sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"
    ),
    "vit_l": Official(
        "sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"
    ),
    "vit_b": Official(
        "sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"
    ),
}


def load_sam(model: str, checkpoint: str | Path, sha256: str, device: torch.device) -> Any:
    """segment_anything's Sam with the weights of a checkpoint, on the device, in evaluation mode.

    model: vit_h, vit_l or vit_b; sha256: what the file must have (64 hexadecimal digits), empty =
    the official one of the model. Raises SamError for an unknown model, a missing package or file,
    another digest, or a file that does not fit the model.
    """
    if model not in CHECKPOINTS:
        raise SamError(f"segments.sam.model: no SAM {model!r}; use one of {', '.join(CHECKPOINTS)}")
    if find_spec("segment_anything") is None:
        raise SamError("segments.backend: sam needs `pip install segment-anything`")
    checkpoint = Path(checkpoint)
    _check(CHECKPOINTS[model], checkpoint, sha256)
    from segment_anything import sam_model_registry

    net = sam_model_registry[model]()
    try:
        net.load_state_dict(_state(checkpoint))
    except RuntimeError as error:
        raise SamError(
            f"segments.checkpoint: {checkpoint} does not fit {model}, set segments.sam.model to what it is: {error}"
        ) from error
    return net.eval().requires_grad_(False).to(device)


def autocast(device: torch.device, precision: torch.dtype | None) -> AbstractContextManager[Any]:
    """A context in which networks compute in `precision`; None and float32 leave them as they are."""
    if precision in (None, torch.float32):
        return nullcontext()
    return torch.autocast(device.type, dtype=precision)


def _check(official: Official, checkpoint: Path, sha256: str) -> None:
    fetch = (
        f"the official one is at {official.address}: `curl -L -o {checkpoint} {official.address}`"
    )
    if not checkpoint.is_file():
        raise SamError(f"segments.checkpoint: {checkpoint} is no file; {fetch}")
    with checkpoint.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    wanted = (sha256 or official.sha256).lower()
    if found == wanted:
        return
    if sha256:
        raise SamError(
            f"segments.sha256: {checkpoint} has SHA-256 {found}, not {wanted}; correct the parameter or fetch the file again"
        )
    raise SamError(
        f"segments.checkpoint: {checkpoint} has SHA-256 {found}, the official {official.name} has {wanted}; {fetch}; "
        f"if it is a checkpoint of your own that you trust, set segments.sha256: {found}"
    )


def _state(checkpoint: Path) -> dict[str, Tensor]:
    try:
        state = load_checkpoint(checkpoint)
    except WeightsError as error:
        raise SamError(
            f"segments.checkpoint: {error}; give a state dict as torch.save writes it"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise SamError(
            f"segments.checkpoint: {checkpoint} is no state dict of tensors; save the network's own state_dict()"
        )
    return state


__all__ = ["AutomaticMaskGenerator", "SamPrompter", "load_sam"]

BATCH = {"cpu": 8, "cuda": 64}
"""Prompts that go through the decoder together; on a CPU larger batches fall out of the cache."""


class AutomaticMaskGenerator:
    """Segments everything in an image, on the device of `net`.

    net: segment_anything's Sam, see load_sam; precision: dtype of autocast, None or float32 for
    none; points_per_side: n of the n x n grid of prompts; points_per_batch: prompts decoded
    together, 0 = what suits the device, changes speed and memory alone; embeddings: whether records
    hold them (2 MiB an image), for SamPrompter; the others: see Filters.
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
        """The record of a uint8 RGB image [H,W,3]: layout `segments` of pipeline/core/artifacts.py.

        segments: u2 [H,W], 0 = none, ids 1..S; stability, iou: f4 [S]; embeddings: f2 [D,h,w] of
        the whole padded square, or (0,0,0). The smallest segment that covers a pixel owns it (S2C,
        section 3.2; its published code lets the highest predicted IoU win).
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
    """Answers points with masks from the embeddings of stored records; holds SAM's decoder alone,
    not its image encoder.

    Of the three masks of a prompt the decoder's predicted IoU chooses one, as in SAM. The published
    S2C code always takes the third and ignores the prediction. stability_offset: in logits, of
    SAM's stability score, which the paper names and that code replaces by raw logits.
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
        """One mask [H,W] and its stability for the points of each query, all of them points of one
        prompt; in their order.

        Queries of several images share network calls; neither they nor the number of their points
        touch one another's answers. Raises SamError for a record without embeddings, or with those
        of another network.
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

        The prompt encoder adds half a pixel of its input to what it takes for pixel indices; a
        query's points have it already.
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
        """Embeddings [B,D,h,w] float32, or [1,D,h,w] if all ask about one image; each image's go to
        the device once.
        """
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
