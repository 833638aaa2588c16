"""What weights and checkpoints hold, in words."""

from pathlib import Path

from torch import Tensor

from pipeline.core.weights import WeightsError, load_checkpoint, read_weights
from pipeline.errors import UserError
from pipeline.views.inspection.words import SHOWN


def describe_weights(path: Path) -> list[str]:
    """Lines of text on a weights file: its header, and how many tensors and values it holds."""
    tensors, header = read_weights(path)
    values = sum(tensor.numel() for tensor in tensors.values())
    odd = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    lines = [f"{header['kind']}: {len(tensors)} tensors, {values / 1e6:.2f} million values"]
    lines += [f"  {key}: {value}" for key, value in header.items() if key != "kind"]
    return [*lines, f"odd: not finite: {', '.join(odd[:SHOWN])}"] if odd else lines


def describe_checkpoint(path: Path) -> list[str]:
    """Lines of text on a checkpoint of a training: its step, its last losses, its size; raises
    UserError if it cannot be read.

    It is replaced in one go while training goes on, so it can be read at any time.
    """
    try:
        state = load_checkpoint(path)
        step, network, rows = state["step"], state["network"], state["curve"]["rows"]
        tensors = {name: value for name, value in network.items() if isinstance(value, Tensor)}
        told = [
            f"{float(row['loss']):.4g} at step {row['step']}" for row in (*rows[:1], *rows[-1:])
        ]
    except WeightsError as error:
        raise UserError(f"{error}; delete it to begin again") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(
            f"{path}: is no checkpoint of a training ({error}); delete it to begin again"
        ) from error
    values = sum(tensor.numel() for tensor in tensors.values())
    lines = [
        f"checkpoint: {step} steps done, {len(tensors)} tensors, {values / 1e6:.2f} million values"
    ]
    if told:
        lines.append(f"loss: {', '.join(told)}")
    odd = [
        name
        for name, one in tensors.items()
        if one.is_floating_point() and not one.isfinite().all()
    ]
    return [*lines, f"odd: not finite: {', '.join(odd[:SHOWN])}" if odd else "nothing odd"]
