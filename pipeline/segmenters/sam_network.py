"""SAM's network from an official or fine-tuned checkpoint: the file is checked, nothing is downloaded, no pickle is run.

The package `segment-anything` is needed only where a network is made or used, so everything here imports without it.
"""

import hashlib
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.weights import WeightsError, load_checkpoint


class SamError(UserError):
    """SAM cannot be had or cannot do what is asked; the message names the file or parameter."""


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

    model: vit_h, vit_l or vit_b; sha256: what the file must have (64 hexadecimal digits), empty = the official one of the model.
    Raises SamError for an unknown model, a missing package or file, another digest, or a file that does not fit the model.
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
    fetch = f"the official one is at {official.address}: `curl -L -o {checkpoint} {official.address}`"
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
        raise SamError(f"segments.checkpoint: {error}; give a state dict as torch.save writes it") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SamError(
            f"segments.checkpoint: {checkpoint} is no state dict of tensors; save the network's own state_dict()"
        )
    return state
