"""Segment Anything (SAM; Kirillov et al., ICCV 2023) as a segmenter and as the prompter of S2C.

    sam = load_sam("vit_h", "sam_vit_h_4b8939.pth", "", device)
    record = AutomaticMaskGenerator(sam, embeddings=True).segment(image)
    answers = SamPrompter(sam, "whole").prompt([Query(record, points_xy)])

The network is that of the package `segment-anything`. Its weights come from an official or
fine-tuned checkpoint whose SHA-256 is checked; nothing is downloaded, and no pickled code is run.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from segment_anything import sam_model_registry
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn import functional as F

from pipeline.core.artifacts import Record
from pipeline.core.weights import WeightsError, load_checkpoint
from pipeline.errors import UserError
from pipeline.segmenters.prompting import Query
from pipeline.segmenters.sam_amg import MASKS, Decoder, Filters, Prompts, segment_everything

BATCH = {"cpu": 8, "cuda": 64}
"""Prompts decoded together; on a CPU larger batches fall out of the cache."""
RULES = ("whole", "best")
"""Which of a prompt's masks is taken: the whole object's, or that of highest predicted IoU."""


class SamError(UserError):
    """SAM is unavailable or cannot process an image; the message names the file or parameter."""


CHECKPOINTS = {
    "vit_h": "sam_vit_h_4b8939.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_b": "sam_vit_b_01ec64.pth",
}
"""Official checkpoints, published under URL."""
SHA256 = {
    "vit_h": "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    "vit_l": "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    "vit_b": "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
}
URL = "https://dl.fbaipublicfiles.com/segment_anything"


def load_sam(model: str, checkpoint: str | Path, sha256: str, device: torch.device) -> "Sam":
    """Load segment_anything's Sam with the weights of a checkpoint, in evaluation mode.

    Args:
        model: vit_h, vit_l or vit_b.
        checkpoint: State dict as torch.save writes it.
        sha256: Expected digest of the file (64 hexadecimal digits); empty for the official one.
        device: Where the network computes.

    Raises:
        SamError: The file is missing or has another digest, or its weights do not fit the model.
    """
    checkpoint = Path(checkpoint)
    _check_digest(model, checkpoint, sha256)
    net = sam_model_registry[model]()
    try:
        net.load_state_dict(load_checkpoint(checkpoint))
    except (WeightsError, RuntimeError, TypeError) as error:
        raise SamError(
            f"segments.checkpoint: {checkpoint} is not a {model} state dict as torch.save writes "
            f"it; correct the file, or set segments.sam.model to its model: {error}"
        ) from error
    return Sam(net.eval().requires_grad_(False).to(device))


def _check_digest(model: str, checkpoint: Path, sha256: str) -> None:
    url = f"{URL}/{CHECKPOINTS[model]}"
    fetch = f"download the official one: `curl -L -o {checkpoint} {url}`"
    if not checkpoint.is_file():
        raise SamError(f"segments.checkpoint: no such file: {checkpoint}; {fetch}")
    with checkpoint.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    expected = (sha256 or SHA256[model]).lower()
    if found == expected:
        return
    if sha256:
        raise SamError(
            f"segments.sha256: {checkpoint} has SHA-256 {found}, not {expected}; correct the "
            "parameter or download the file again"
        )
    raise SamError(
        f"segments.checkpoint: {checkpoint} has SHA-256 {found}, but the official "
        f"{CHECKPOINTS[model]} has {expected}; {fetch}; if it is a checkpoint of your own that you "
        f"trust, set segments.sha256: {found}"
    )


class Sam(Decoder):
    """segment_anything's Sam: its image encoder, and its decoder as sam_amg runs it.

    Attributes:
        net: The network of the package.
        rules: Which of RULES can select among a prompt's masks.
    """

    rules: tuple[str, ...] = RULES

    def __init__(self, net: Any) -> None:
        super().__init__(net)
        self.net = net

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        device: torch.device = self.net.device
        return device

    def encode(self, image: np.ndarray) -> Tensor:
        """Return the embeddings [1,D,h,w] of a uint8 RGB image [H,W,3], on the device of the net.

        The image is resized to SAM's input side and padded at the right and bottom, as the package
        does; the whole padded grid is returned. ViT-H/L/B: D 256, h = w = 64. Raises SamError for
        an image so narrow that its shorter side would vanish.
        """
        self.check(image)
        resized = ResizeLongestSide(self.size).apply_image(image)
        pixels = torch.from_numpy(resized).to(self.device, non_blocking=True).permute(2, 0, 1)
        found: Tensor = self.net.image_encoder(self.net.preprocess(pixels[None]))
        return found

    def check(self, image: np.ndarray) -> None:
        """Raise SamError if an image [H,W,3] is so narrow that its shorter side would vanish."""
        height, width = image.shape[:2]
        if min(self.extent((height, width))) == 0:
            raise SamError(
                f"{width} x {height} pixels are too narrow for SAM, whose input is {self.size} "
                "wide; crop the image, remove it from the dataset, or set segments.backend: "
                "superpixels"
            )


class AutomaticMaskGenerator:
    """Segments everything in an image, on the device of `sam`.

    Args:
        sam: The network, see load_sam.
        points_per_side: n of the n x n grid of prompts.
        embeddings: Whether records hold them (2 MiB an image), for SamPrompter.
        filters: See Filters.
    """

    def __init__(
        self, sam: Sam, *, points_per_side: int = 32, embeddings: bool = False, **filters: Any
    ) -> None:
        self.sam, self.filters = sam, Filters(**filters)
        self.points_per_side, self.embeddings = points_per_side, embeddings

    @torch.inference_mode()
    def segment(self, image: np.ndarray) -> Record:
        """Return the record, layout `segments`, of a uint8 RGB image [H,W,3].

        segments: u2 [H,W], 0 = none, ids 1..S; stability, iou: f4 [S]; embeddings: f2 [D,h,w] of
        the whole padded square, or [0,0,0]. The smallest segment that covers a pixel owns it (S2C,
        section 3.2; its published code lets the highest predicted IoU win).
        """
        embeddings = self.sam.encode(image)
        found = segment_everything(
            self.sam,
            embeddings,
            (image.shape[0], image.shape[1]),
            points_per_side=self.points_per_side,
            points_per_batch=BATCH[self.sam.device.type],
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
    """Answers prompts from the embeddings of stored records, by SAM's decoder alone, in the context
    of `autocast`.

    Args:
        sam: The network, see load_sam.
        rule: One of RULES. `whole` takes the last of a prompt's three masks, as S2C's published
            code does; `best` lets the decoder's predicted IoU select, as SAM does, which may prefer
            a part of the object.
        autocast: Context of the decoder's computations.
    """

    def __init__(
        self,
        sam: Sam,
        rule: str,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.decoder, self.device, self.autocast = sam, sam.device, autocast
        self.whole = rule == "whole"

    @torch.no_grad()
    def prompt(self, queries: Sequence[Query]) -> list[Tensor]:
        """Return the logits [H,W] of one mask per query, whose points and box are one prompt.

        Queries of several images share network calls; answers depend neither on the other queries
        nor on the number of their points.
        """
        size = BATCH[self.device.type]
        parts = [queries[start : start + size] for start in range(0, len(queries), size)]
        return [
            self.decoder.resize(logits[None], query.record["segments"].shape)[0]
            for part in parts
            for query, logits in zip(part, self.logits(part), strict=True)
        ]

    def logits(self, queries: Sequence[Query]) -> Tensor:
        """Return low-resolution logits [B,4h,4w] of the queries' masks, from one network call."""
        prompts, embeddings = self._prompts(queries), self._embeddings(queries)
        with self.autocast():
            attended = self.decoder.attend(embeddings, prompts)
            best = attended.iou.argmax(1)
            chosen = torch.full_like(best, MASKS - 1) if self.whole else best
            return self.decoder.logits(attended, F.one_hot(chosen, MASKS).bool())

    def _prompts(self, queries: Sequence[Query]) -> Prompts:
        """Return the points and boxes of the queries in SAM's input; no boxes if a query has none.

        The package's prompt encoder adds half a pixel of its input to what it takes for pixel
        indices; a query's points include it already.
        """
        longest = max(len(query.points_xy) + len(query.outside_xy) for query in queries)
        points, boxes = np.zeros((len(queries), longest, 2)), np.zeros((len(queries), 2, 2))
        labels = np.full((len(queries), longest), -1, np.int32)
        for row, label, box, query in zip(points, labels, boxes, queries, strict=True):
            height, width = query.record["segments"].shape
            rows, columns = self.decoder.extent((height, width))
            scale, inside = np.array([columns / width, rows / height]), len(query.points_xy)
            both = np.concatenate([query.points_xy, query.outside_xy])
            row[: len(both)] = both * scale - 0.5
            label[:inside], label[inside : len(both)] = 1, 0
            if query.box_xyxy is not None:
                box[:] = np.reshape(query.box_xyxy, (2, 2)) * scale - 0.5
        without = any(query.box_xyxy is None for query in queries)
        arrays = points, labels.clip(0), labels < 0, boxes.reshape(-1, 4)
        xy, on, empty, xyxy = (
            torch.from_numpy(array).to(self.device, non_blocking=True) for array in arrays
        )
        return Prompts(xy, on, empty, None if without else xyxy)

    def _embeddings(self, queries: Sequence[Query]) -> Tensor:
        """Return embeddings [B,D,h,w] float32, or [1,D,h,w] if all queries are of one image; those
        of each image are copied to the device once.
        """
        records = {id(query.record): query.record for query in queries}
        stacked = torch.from_numpy(np.stack([record["embeddings"] for record in records.values()]))
        embeddings = stacked.to(self.device, non_blocking=True).float()
        places = {key: place for place, key in enumerate(records)}
        if len(places) == 1:
            return embeddings
        return embeddings[[places[id(query.record)] for query in queries]]
