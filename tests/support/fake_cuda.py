"""A CUDA device played on the CPU, to find mixed devices on a machine that has no GPU.

Inside `with fake_cuda() as device:` tensors sent to `cuda` are computed on the CPU, but report
device `cuda:0`. As on a GPU, operators refuse tensors of both devices, numpy cannot read a tensor
of the device, and a `non_blocking` copy to the CPU holds nothing of use before it is waited for.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
"""Operators whose indices may lie on either device."""
ANSWERS = {"is_available": True, "device_count": 1, "current_device": 0, "set_device": None}
ANSWERS |= {"is_bf16_supported": False, "is_current_stream_capturing": False}
"""Of torch.cuda: one device, which computes in float32, so that results are comparable."""
PENDING: list[tuple[Tensor, Tensor]] = []
"""Copies to the CPU under way: target, and what it will hold."""


@contextmanager
def fake_cuda() -> Iterator[torch.device]:
    """Play a CUDA device on the CPU, and yield it."""
    with ExitStack() as stack:
        for name, answer in ANSWERS.items():
            stack.enter_context(patch.object(torch.cuda, name, return_value=answer))
        stack.enter_context(patch.multiple(torch.cuda, Event=_Event, synchronize=_finish))
        stream = SimpleNamespace(is_capturing=lambda: False)  # optimizers ask
        stack.enter_context(patch.object(torch.accelerator, "current_stream", lambda: stream))
        stack.callback(PENDING.clear)
        stack.enter_context(_Operators())
        stack.enter_context(_Functions())
        yield CUDA


def on_device(tensor: Tensor) -> bool:
    """Return whether a tensor lies on the fake device; all views of a storage lie where it does."""
    return tensor.layout == torch.strided and getattr(tensor.untyped_storage(), "on_cuda", False)


def _device(tensor: Tensor) -> torch.device:
    return CUDA if on_device(tensor) else CPU


def _tensors(values: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _put(out: object, there: bool) -> None:
    for tensor in _tensors(out):
        if tensor.layout == torch.strided:
            tensor.untyped_storage().on_cuda = there  # type: ignore[attr-defined]


def _finish(copies: list[tuple[Tensor, Tensor]] = PENDING) -> None:
    for target, source in copies:
        with torch.no_grad():
            target.copy_(source)
    copies.clear()


class _Event:
    """A torch.cuda.Event: the copies that it recorded have arrived once it is synchronized."""

    def record(self) -> None:
        self.recorded, PENDING[:] = PENDING.copy(), []

    def synchronize(self) -> None:
        _finish(self.recorded)


class _Operators(TorchDispatchMode):
    """Below autograd, backward passes and optimizers included: results lie where the inputs do."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        tensors = _tensors((args, kwargs))
        if not any(map(on_device, tensors)):
            return func(*args, **kwargs)
        if name in INDEXING and on_device(args[0]):
            tensors = [args[0], *_tensors(args[2:])]
        away = [tensor for tensor in tensors if tensor.dim() and not on_device(tensor)]
        # autograd fills missing gradients with zeros, on the device where they belong
        if away and name not in ("copy_", "_to_copy") and torch._C._current_autograd_node() is None:
            shapes = ", ".join(f"{tuple(t.shape)} on {_device(t)}" for t in tensors)
            raise RuntimeError(f"{name} was given tensors of two devices: {shapes}")
        if name == "_local_scalar_dense":  # a value waits for everything before it
            _finish()
        out = func(*args, **kwargs)
        _put(out, there=on_device(args[0]) if name == "copy_" else True)
        return out


class _Functions(TorchFunctionMode):
    """Above autograd: what names a device, and what leaves PyTorch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return _device(args[0])
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return on_device(args[0])
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._move(func, args[0], args[1:], named)
        if func in (Tensor.numpy, Tensor.__array__) and on_device(args[0]):
            raise TypeError(f"numpy cannot read {tuple(args[0].shape)} on {CUDA}")
        if func == Tensor.pin_memory:
            return args[0]
        if func == torch.nn.functional.one_hot and on_device(args[0]):
            with _disable_current_modes():  # it creates a tensor that no operator shows
                out = func(*args, **named)
        else:
            device = named.get("device", _device(args[0]) if func == Tensor.new_tensor else None)
            if device is None or torch.device(device).type != CUDA.type:
                return func(*args, **named)
            out = func(*args, **named | {"device": CPU})
        _put(out, there=True)
        return out

    def _move(self, func: Any, tensor: Tensor, args: Sequence[Any], named: Any) -> Tensor:
        """Return a tensor on another device, of another type, or both."""
        there, wait = on_device(tensor), not named.pop("non_blocking", False)
        device = named.pop("device", {Tensor.cpu: CPU, Tensor.cuda: CUDA}.get(func))
        types = [value for value in args if isinstance(value, torch.dtype)]
        types += [named.pop("dtype")] if "dtype" in named else []
        for value in args:
            if isinstance(value, Tensor):
                device, types = _device(value), [value.dtype]
            elif isinstance(value, str | torch.device):
                device = value
        goes = there if device is None else torch.device(device).type == CUDA.type
        out = tensor.to(dtype=next(iter(types), None), **named)
        if goes == there:
            return out
        _put(out := out.clone() if out is tensor else out, goes)
        if there and wait:
            _finish()
        elif there:
            PENDING.append((out, out.clone()))
            out.fill_(torch.nan) if out.is_floating_point() else out.zero_()
        return out
