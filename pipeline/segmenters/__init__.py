"""Class-agnostic segments of an image and masks prompted by points: by Segment Anything, or without
any weights by superpixels.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # superpixels need neither SAM nor torch
    import torch

    from pipeline.params.data import Segments
    from pipeline.segmenters.sam import Sam


def load_network(section: "Segments", device: "torch.device") -> "Sam":
    """Load the network of backend `sam` or `transformers`; raise SamError."""
    if section.backend == "transformers":
        from pipeline.segmenters.transformers import load_transformers_sam

        return load_transformers_sam(section.checkpoint, device)
    from pipeline.segmenters.sam import load_sam

    return load_sam(section.sam.model, section.checkpoint, section.sha256, device)
