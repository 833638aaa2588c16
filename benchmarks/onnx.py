"""Exported final models in onnxruntime against the same models in PyTorch, on the CPU."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.measure import Benchmark, temporary_folder
from pipeline.core.weights import save_weights

BACKBONE, CLASSES = "tf_efficientnet_lite0", tuple("abcdefgh")
HEIGHT, WIDTH = 375, 500
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 3, HEIGHT, WIDTH), np.uint8)


def weights(task: str) -> Path:
    """Write a final model with random weights, on which time does not depend."""
    network: nn.Module
    header: dict[str, Any] = {"backbone": BACKBONE, "classes": CLASSES}
    torch.manual_seed(0)
    if task == "semantic":
        from pipeline.nets.deeplab import SemanticNet

        network = SemanticNet(len(CLASSES) + 1, BACKBONE)
    else:
        from pipeline.instances.sparseinst import SparseInst

        options: dict[str, Any] = {"width": 128, "queries": 30, "groups": 4}
        network = SparseInst(len(CLASSES), BACKBONE, **options)
        header |= {"method": "sparseinst", "options": options, "resize": (375, 375)}
    path = temporary_folder() / f"{task}.safetensors"
    save_weights(path, network, task, **header)
    return path


def in_onnxruntime(task: str) -> Callable[[], object]:
    import onnxruntime

    from stages.cli.main import main

    path = weights(task)
    output = path.with_suffix(".onnx")
    with redirect_stdout(io.StringIO()):
        main(["export-onnx", str(path), "-o", str(output)], standalone_mode=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(output, options, ["CPUExecutionProvider"])
    inputs: dict[str, np.ndarray] = {"images": IMAGE}
    if task == "instance":
        inputs["score"] = np.array(0.3, np.float32)
    return lambda: session.run(None, inputs)


def in_pytorch(task: str) -> Callable[[], object]:
    from pipeline.onnx import load_model

    return partial(load_model(weights(task)).reference, torch.from_numpy(IMAGE))


BENCHMARKS = tuple(
    Benchmark(
        f"ONNX, {model}",
        f"an image of {WIDTH}x{HEIGHT}, {BACKBONE}",
        partial(in_onnxruntime, task),
        partial(in_pytorch, task),
        "PyTorch, same run",
        packages=("onnx", "onnxruntime", "onnxscript"),
    )
    for task, model in (("semantic", "DeepLabV3+"), ("instance", "SparseInst"))
)
