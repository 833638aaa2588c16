"""Class-agnostic segments of an image and prompted masks, by Segment Anything or, without any
weights, by superpixels.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.segmenters.prompting import Prompter

if TYPE_CHECKING:  # superpixels need neither SAM nor torch
    import torch

    from pipeline.core.device import Runtime
    from pipeline.params.data import Segments
    from pipeline.segmenters.sam import Sam


def load_network(section: "Segments", device: "torch.device") -> "Sam":
    """Load the network of backend `sam` or `transformers`; raise SamError."""
    if section.backend == "transformers":
        from pipeline.segmenters.transformers import load_transformers_sam

        return load_transformers_sam(section.checkpoint, device)
    from pipeline.segmenters.sam import load_sam

    return load_sam(section.sam.model, section.checkpoint, section.sha256, device)


def load_prompters(section: "Segments", runtime: "Runtime") -> Mapping[str, Prompter]:
    """Load what answers prompts from the embeddings of a backend, by the rule that each selects a
    mask by; raise SamError.
    """
    if section.backend == "superpixels":
        from pipeline.segmenters.superpixels import SuperpixelPrompter

        return {"whole": SuperpixelPrompter()}
    from pipeline.segmenters.sam import SamPrompter

    sam = load_network(section, runtime.device)
    return {rule: SamPrompter(sam, rule, runtime.autocast) for rule in sam.rules}
