"""Whether an ONNX file says in onnxruntime what the network says in PyTorch, and how long both
take.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
import torch

from pipeline.errors import UserError
from pipeline.onnx.agreement import difference
from pipeline.readers import scenes

if TYPE_CHECKING:
    from pipeline.onnx.graphs import Graph

Result = TypeVar("Result")
AGREEMENT = 0.999
"""IoU of both results that must be exceeded; rounding moves single pixels."""
SIZES = ((1, 96, 128), (2, 131, 97), (1, 224, 320), (1, 375, 500))
"""(images, height, width) that are tried: with and without padding, high and wide, and more than
one.
"""
RUNS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One size: (images, height, width), IoU of both results, largest difference of probabilities
    or scores, seconds of each.
    """

    size: tuple[int, int, int]
    agreement: float
    difference: float
    torch_seconds: float
    onnx_seconds: float


def check(model: bytes, graph: "Graph", sizes: Sequence[tuple[int, int, int]] = SIZES) -> list[Row]:
    """Compare both on drawn images of several sizes; raises UserError for a file that cannot be
    run, or that disagrees.
    """
    session = _session(model)
    names = [output.name for output in session.get_outputs()]
    if names != [port.name for port in graph.outputs]:
        raise UserError(
            f"the exported outputs are called {', '.join(names)}; try another version of torch"
        )
    rows = [_row(session, graph, size) for size in sizes]
    for row in rows:
        if not row.agreement > AGREEMENT:
            count, height, width = row.size
            raise UserError(
                f"onnxruntime and PyTorch agree to {row.agreement:.4f} alone on {count} images of {width}x{height}, more than "
                f"{AGREEMENT} is wanted; try another --opset, or another version of torch or onnxruntime"
            )
    return rows


def images(count: int, height: int, width: int) -> np.ndarray:
    """Drawn scenes uint8 [B,3,H,W]: even ground and sharp edges, as networks know them, where noise
    would be like nothing.
    """
    drawn = [cv2.resize(scenes.draw(number).image, (width, height)) for number in range(count)]
    return np.ascontiguousarray(np.stack(drawn).transpose(0, 3, 1, 2))


def _session(model: bytes) -> Any:
    """onnxruntime on the CPU with as many threads as PyTorch; raises UserError for what it cannot
    load.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class
        raise UserError(
            f"onnxruntime {onnxruntime.__version__} cannot load the exported model ({error}); lower --opset, or update onnxruntime"
        ) from error


def _row(session: Any, graph: "Graph", size: tuple[int, int, int]) -> Row:
    given = images(*size)
    inputs = {port.name: np.array(0, np.float32) for port in graph.inputs if port.value is not None}
    inputs[graph.inputs[0].name] = given
    theirs, onnx_seconds = _timed(lambda: session.run(None, inputs))
    ours, torch_seconds = _timed(
        lambda: [part.numpy() for part in graph.reference(torch.from_numpy(given))]
    )
    largest = difference(ours[graph.numbers], theirs[graph.numbers])
    return Row(size, graph.agreement(ours, theirs), largest, torch_seconds, onnx_seconds)


def _timed(run: Callable[[], Result]) -> tuple[Result, float]:
    """The result of the first run, and the median seconds of those after it."""
    result, seconds = run(), []
    for _ in range(RUNS):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return result, median(seconds)
