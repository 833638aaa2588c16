"""A GPU played on the CPU: what a program would do wrong with one, and how often it would wait for
it, seen without having one.

Tensors that are sent to a `cuda` device are computed on the CPU, but say that they are there, and
meet no tensor of the CPU. An operator stands for what a GPU is asked to do (most are one kernel), a
wait for each moment at which the program needs a value from it and can ask for nothing more
meanwhile. Neither is a time.
"""

import sysconfig
import traceback
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from tests.support.repository import ROOT

DEVICE, HOST = torch.device("cuda", 0), torch.device("cpu")
WAITING = (
    "_local_scalar_dense",
    "nonzero",
    "equal",
    "masked_select",
    "bincount",
    "_unique2",
    "repeat_interleave",
)
"""Operators whose result has a size, or is a value, that the program waits for."""
COPYING = ("copy_", "_to_copy")
"""Operators that may read from one device and write to the other."""
TO_HOST, TO_DEVICE = "copy to the CPU", "copy to the device"
"""Copies, which PyTorch waits for in both directions unless they are `non_blocking`."""
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
"""Operators that take their indices from either device; a mask must be counted first."""
FILLED_HERE = (torch.tensor, torch.as_tensor, Tensor.new_tensor)
"""Functions that make a tensor of values of the program's and copy it."""
MAKING = (torch.nn.functional.one_hot,)
"""Functions that make tensors of their own where their input is, unseen from Python."""
CUDA: Mapping[str, Callable[..., Any]] = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "set_device": lambda device: None,
    "current_device": lambda: 0,
    "is_bf16_supported": lambda *arguments: False,
    "synchronize": lambda device=None: None,
    "is_current_stream_capturing": lambda: False,
}
"""What torch.cuda says of it: one device, which computes in float32 so that its results can be held
against the CPU's.
"""
LIBRARIES = tuple(
    Path(path) for path in {sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")}
)
"""Where a wait is not looked for."""
Place = tuple[str, str]
"""What waited, and the line of the program that asked for it."""


class MixedDevicesError(RuntimeError):
    """An operator got tensors of both devices, or numpy one that is not in its memory."""


class StandIn:
    """While entered, `cuda` is the stand-in; `operators` and `waits` count what it is asked for."""

    def __init__(self) -> None:
        self.operators: Counter[str] = Counter()
        self.waits: Counter[Place] = Counter()
        self.copies: deque[tuple[Tensor, Tensor]] = deque()
        self._modes = ExitStack()

    def __enter__(self) -> "StandIn":
        for name, answer in CUDA.items():
            self._modes.enter_context(patch.object(torch.cuda, name, answer))
        self._modes.enter_context(patch.object(torch.accelerator, "current_stream", _Stream))
        self._modes.enter_context(patch.object(torch.cuda, "Event", partial(_Event, self)))
        self._modes.enter_context(_Operators(self))
        self._modes.enter_context(_Functions(self))
        return self

    def __exit__(self, *raised: object) -> None:
        self._modes.close()

    def wait(self, what: str) -> None:
        """Count a wait at the innermost line of the program."""
        frames = traceback.walk_stack(None)
        mine = ((Path(frame.f_code.co_filename), line) for frame, line in frames)
        inside = ((path, line) for path, line in mine if path != Path(__file__))
        path, line = next((found for found in inside if _of_program(found[0])), (Path("?"), 0))
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
        self.waits[what, f"{shown}:{line}"] += 1


def is_there(tensor: Tensor) -> bool:
    """Whether a tensor is on the stand-in; all views of a storage are where it is."""
    return tensor.layout == torch.strided and getattr(tensor.untyped_storage(), "stand_in", False)


def _put(out: object, there: bool) -> None:
    for tensor in _tensors(out):
        if tensor.layout == torch.strided:
            tensor.untyped_storage().stand_in = there  # type: ignore[attr-defined]


def _tensors(values: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _of_program(path: Path) -> bool:
    return path.suffix == ".py" and not any(path.is_relative_to(folder) for folder in LIBRARIES)


class _Event:
    """What has been asked of the stand-in so far: copies that are not waited for have arrived once
    it is.
    """

    def __init__(self, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self.before: list[tuple[Tensor, Tensor]] = []

    def record(self) -> None:
        """Remember the copies under way."""
        self.before = list(self.stand_in.copies)
        self.stand_in.copies.clear()

    def synchronize(self) -> None:
        """Let them arrive."""
        for target, source in self.before:
            with torch.no_grad():
                target.copy_(source)


class _Stream:
    """What optimizers ask before they step."""

    def is_capturing(self) -> bool:
        """No graph is being captured."""
        return False


class _Operators(TorchDispatchMode):
    """Below autograd, where backward passes and optimizers are seen, too: results are where their
    inputs are.
    """

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__()
        self.stand_in = stand_in

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operator; raises MixedDevicesError."""
        name, tensors = func.overloadpacket.__name__, _tensors((args, kwargs))
        if not any(map(is_there, tensors)):
            return func(*args, **(kwargs or {}))
        self._check(name, args, tensors)
        out = func(*args, **(kwargs or {}))
        before = {id(tensor.untyped_storage()) for tensor in tensors}
        _put(out, there=is_there(args[0]) if name == "copy_" else True)
        if not func.is_view or any(
            id(tensor.untyped_storage()) not in before for tensor in _tensors(out)
        ):
            self.stand_in.operators[name] += 1
        return out

    def _check(self, name: str, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
        """Refuse a mixture of devices, and count what is waited for."""
        if name in INDEXING:
            if any(index.dtype in (torch.bool, torch.uint8) for index in _tensors(args[1])):
                self.stand_in.wait("mask as index")
            tensors = [args[0], *_tensors(args[2:])] if is_there(args[0]) else tensors
        if name in WAITING:
            self.stand_in.wait(name)
        apart = any(tensor.dim() and not is_there(tensor) for tensor in tensors)
        # what is missing autograd fills with zeros of its own, on the device where the gradient
        # belongs
        if apart and name not in COPYING and torch._C._current_autograd_node() is None:
            shapes = ", ".join(f"{tuple(tensor.shape)} on {_device(tensor)}" for tensor in tensors)
            raise MixedDevicesError(f"{name} got tensors of two devices: {shapes}")
        if name == "copy_" and not any(args[2:3]):
            self._copied(*args[:2])
        if name in INDEXING and not all(map(is_there, _tensors(args[1]))):
            self.stand_in.wait(TO_DEVICE)

    def _copied(self, target: Tensor, source: Tensor) -> None:
        """Count the wait for a copy; a number that is put in a place is made on the device."""
        if is_there(source) != is_there(target) and (is_there(source) or source.dim()):
            self.stand_in.wait(TO_HOST if is_there(source) else TO_DEVICE)


def _device(tensor: Tensor) -> torch.device:
    return DEVICE if is_there(tensor) else HOST


class _Functions(TorchFunctionMode):
    """Above autograd: what names a device, and what leaves PyTorch."""

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__()
        self.stand_in = stand_in

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function on the CPU; raises MixedDevicesError."""
        named = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return _device(args[0])
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return is_there(args[0])
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._moved(func, args[0], args[1:], named)
        if func in (Tensor.numpy, Tensor.__array__) and is_there(args[0]):
            raise MixedDevicesError(f"numpy asked for {tuple(args[0].shape)} on {DEVICE}")
        if func == Tensor.tolist and is_there(args[0]) and args[0].dim():
            self.stand_in.wait("tolist")
        return args[0] if func == Tensor.pin_memory else self._made(func, args, named)

    def _made(self, func: Callable[..., Any], args: Sequence[Any], named: dict[str, Any]) -> Any:
        """What a function makes, on the device that it names, if any."""
        if func in MAKING and is_there(args[0]):
            with _disable_current_modes():
                out = func(*args, **named)
            _put(out, there=True)
            return out
        device = named.get("device")
        if device is None and func == Tensor.new_tensor:
            device = _device(args[0])
        if device is None or torch.device(device).type != DEVICE.type:
            return func(*args, **named)
        out = func(*args, **named | {"device": HOST})
        _put(out, there=True)
        if func in FILLED_HERE:
            self.stand_in.wait(TO_DEVICE)
        return out

    def _moved(
        self, func: Callable[..., Any], tensor: Tensor, args: Sequence[Any], named: dict[str, Any]
    ) -> Tensor:
        """A tensor on another device, as another type, or both."""
        there, asked = is_there(tensor), {Tensor.cpu: HOST, Tensor.cuda: DEVICE}.get(func)
        waits = not named.pop("non_blocking", False)
        device = named.pop("device", asked)
        types = [named.pop("dtype")] if "dtype" in named else []
        for value in args:
            if isinstance(value, str | torch.device):
                device = value
            elif isinstance(value, torch.dtype):
                types.append(value)
            elif isinstance(value, Tensor):
                device, types = _device(value), [value.dtype]
        goes = there if device is None else torch.device(device).type == DEVICE.type
        out = tensor.to(*types, **named) if types or named else tensor
        if goes == there:
            return out
        if waits:
            self.stand_in.wait(TO_HOST if there else TO_DEVICE)
        if not there:
            self.stand_in.operators[TO_DEVICE] += 1
        out = out.clone() if out.untyped_storage() is tensor.untyped_storage() else out
        _put(out, goes)
        if there and not waits:
            source = out.clone()
            self.stand_in.copies.append(
                (out.fill_(torch.nan) if out.is_floating_point() else out.zero_(), source)
            )
        return out
