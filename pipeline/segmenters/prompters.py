"""Segments as training finds them: the file, and the prompter that understands what it stores."""

from pathlib import Path

import torch

from pipeline.segmenters.growing import GrowingPrompter
from pipeline.segmenters.prompting import Guidance
from pipeline.segmenters.sam import SamPrompter, load_sam
from pipeline.store import Reader


def guidance(
    path: Path,
    *,
    backend: str,
    embeddings: bool,
    model: str,
    checkpoint: str,
    sha256: str,
    device: torch.device,
    precision: torch.dtype,
) -> Guidance | None:
    """The segments of a file that `backend` wrote, with its prompter if it stored embeddings; None for a file without pictures.

    model, checkpoint, sha256: the weights of Segment Anything; device, precision: where and how it decodes.
    """
    segments = Reader(path, "segments")
    if not segments.names:
        return None
    if not embeddings:
        return Guidance(segments, None)
    if backend == "superpixels":
        return Guidance(segments, GrowingPrompter())
    network = load_sam(model, checkpoint, sha256, device)
    return Guidance(segments, SamPrompter(network, precision=precision))
