"""Many tensors to or from the device as one: a copy for each would let a GPU and the program wait for each other every time."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def sent(arrays: Sequence[np.ndarray], kind: type, device: torch.device) -> list[Tensor]:
    """Return arrays, each of any shape, as tensors of the numpy type `kind` on the device; nothing is waited for."""
    if not arrays:
        return []
    values = np.concatenate([np.asarray(array, kind).ravel() for array in arrays])
    parts = torch.from_numpy(values).to(device, non_blocking=True).split([array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]


def fetched(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Return the values of tensors, each of any shape, of one device and type; waited for once."""
    if not tensors:
        return []
    values = torch.cat([tensor.flatten() for tensor in tensors]).cpu().numpy()
    parts = np.split(values, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
