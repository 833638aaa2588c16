"""Trained networks as safetensors files, whose JSON header holds what rebuilds the network."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.core.resume import write_atomically
from pipeline.errors import UserError

Net = TypeVar("Net", bound=nn.Module)
VERSION = 1
STAGES = ("classifier", "irnet", "semantic", "instance")
"""The stages that write weights, to files of their names."""
KEY = "weakmask"


class WeightsError(UserError):
    """A weights file is missing, damaged or of another kind; the message names it."""


def save_weights(path: Path, network: nn.Module, kind: str, **header: Any) -> None:
    """Write the tensors of a network and `header` (plain values) to `path`, whole or not at all.

    Equal content gives equal bytes.
    """
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
    text = json.dumps(
        {"kind": kind, "version": VERSION, **header}, ensure_ascii=False, sort_keys=True
    )
    write_atomically(path, save(tensors, {KEY: text}))


def read_header(path: Path) -> Mapping[str, Any]:
    """Return the header of any weights file of this pipeline; raise WeightsError."""
    return read_weights(path, with_tensors=False)[1]


def load_weights(path: Path, kind: str) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return (state dict, header) of a weights file of this `kind`; raise WeightsError."""
    tensors, header = read_weights(path)
    if (header["kind"], header["version"]) != (kind, VERSION):
        raise WeightsError(
            f"{path}: holds {header['kind']} version {header['version']}, expected {kind} version "
            f"{VERSION}"
        )
    return tensors, header


def read_weights(
    path: Path, *, with_tensors: bool = True
) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return (state dict, header) of any weights file of this pipeline; raise WeightsError."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; `dvc repro {path.stem}` makes it")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            names = file.keys() if with_tensors else ()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as error:
        raise WeightsError(
            f"{path}: not a readable safetensors file ({error}); {_again(path)}"
        ) from error
    if KEY not in metadata:
        raise WeightsError(f"{path}: a safetensors file, but not written by this pipeline")
    try:
        header = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its header is damaged ({error}); {_again(path)}") from error
    if not isinstance(header, dict) or not {"kind", "version"} <= header.keys():
        raise WeightsError(f"{path}: its header lacks kind and version; {_again(path)}")
    return tensors, header


def _again(path: Path) -> str:
    if path.stem in STAGES:
        return f"make it again with `dvc repro -f {path.stem}`"
    return "copy it again from the run that made it"


def load_checkpoint(path: Path) -> Any:
    """Return what torch.save wrote: tensors and plain values, as no code in the file is run.

    Raises:
        WeightsError: the file holds anything else, or is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises nearly anything, and advises to run the code in it
        raise WeightsError(f"{path}: holds more than weights, or is damaged") from error


def load_network(
    path: Path, kind: str, build: Callable[[Mapping[str, Any]], Net], device: torch.device
) -> Net:
    """Return the network build(header) with the weights of the file, in evaluation mode.

    Raises:
        WeightsError: the file is missing, damaged or of another kind, or its tensors do not fit.
    """
    tensors, header = load_weights(path, kind)
    try:
        network = build(header)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise WeightsError(
            f"{path}: its header does not describe a network ({error!r}); {_again(path)}"
        ) from error
    restore(network, tensors, path)
    return network.eval().to(device)


def restore(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load every tensor strictly; raise WeightsError that names those that do not fit."""
    try:
        network.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise WeightsError(f"{path}: does not fit its own header: {error}") from error
