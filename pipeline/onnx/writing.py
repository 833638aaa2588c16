"""From a graph to the bytes of an ONNX file that says of itself what goes in and comes out."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch.export import Dim

from pipeline.errors import UserError

if TYPE_CHECKING:
    import onnx

    from pipeline.onnx.graphs import Graph, Port

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18
"""The oldest that torch's exporter writes without a conversion, so the one that most runtimes read.
"""
TRIED = (2, 3, 70, 90)
"""Shape of the images that the network is shown; any but sides that divide by a stride, which might
be taken for a rule.
"""


def require_packages() -> None:
    """Raise UserError if a package that exporting needs is not installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f"export-onnx: needs {', '.join(missing)}; `pip install {' '.join(PACKAGES)}` (extra `onnx`)"
        )


def require_opset(opset: int) -> None:
    """Raise UserError for an operator set that the installed packages do not write."""
    from onnx.defs import onnx_opset_version

    if not OPSET <= opset <= onnx_opset_version():
        raise UserError(
            f"--opset: {opset} is not written here; use {OPSET} to {onnx_opset_version()}"
        )


def to_onnx(graph: "Graph", opset: int = OPSET) -> bytes:
    """The ONNX file of a graph; raises UserError for a network that torch cannot export."""
    try:
        model = _exported(graph, opset)
    except Exception as error:  # torch's exporter raises nearly anything for what it does not know
        raise UserError(
            f"backbone {graph.properties['backbone']} cannot be exported by torch {version('torch')}: {_first_line(error)}; "
            f"train another backbone, or try another version of torch"
        ) from error
    written = {entry.domain: entry.version for entry in model.opset_import}
    if written.get("") != opset:
        raise UserError(
            f"--opset: {opset} cannot be met for this network; leave it away for {OPSET}"
        )
    _tidy(model, graph)
    return model.SerializeToString(deterministic=True)


def _exported(graph: "Graph", opset: int) -> "onnx.ModelProto":
    """torch's ModelProto of a graph.

    By the exporter on torch.export: the older one, which traces, is deprecated. What the capture
    would have to prove of all sizes of images it leaves to run time, as the proofs of paddings are
    beyond it; the check on several sizes stands in for them.
    """
    images = torch.zeros(TRIED, dtype=torch.uint8)
    rest = [torch.tensor(port.value) for port in graph.inputs[1:]]
    varying = {
        number: Dim.DYNAMIC
        for number, dim in enumerate(graph.inputs[0].dims)
        if isinstance(dim, str)
    }
    program = torch.export.export(
        graph.module,
        (images, *rest),
        dynamic_shapes=[varying, *({} for _ in rest)],
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    with _quiet("onnxscript.optimizer._constant_folding"):
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=[port.name for port in graph.inputs],
            output_names=[port.name for port in graph.outputs],
            verbose=False,
        )
    assert exported is not None
    return exported.model_proto


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Keep a logger's warnings back: of what the optimizer leaves as it is nobody has to know."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _tidy(model: "onnx.ModelProto", graph: "Graph") -> None:
    """Name what varies, say what things are, and drop what the exporter noted of the source (with
    the paths of this machine).
    """
    from onnx import checker

    for part in (model, model.graph, *model.functions):
        del part.metadata_props[:]
    for owner in (model.graph, *model.functions):
        del owner.value_info[:]
        for node in owner.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for described, ports in (
        (model.graph.input, graph.inputs),
        (model.graph.output, graph.outputs),
    ):
        for value, port in zip(described, ports, strict=True):
            _describe(value, port)
    for key, text in sorted({**graph.properties, **_meanings(graph)}.items()):
        model.metadata_props.add(key=key, value=text)
    checker.check_model(model)


def _describe(value: Any, port: "Port") -> None:
    """Give an input or output its dimensions and its meaning."""
    del value.metadata_props[:]
    value.doc_string = port.meaning
    del value.type.tensor_type.shape.dim[:]
    for dim in port.dims:
        named = {"dim_param": dim} if isinstance(dim, str) else {"dim_value": dim}
        value.type.tensor_type.shape.dim.add(**named)


def _meanings(graph: "Graph") -> Mapping[str, str]:
    """The inputs and outputs in words, as properties that every viewer shows."""
    ports = [
        *(("input", port) for port in graph.inputs),
        *(("output", port) for port in graph.outputs),
    ]
    return {
        f"{side} {port.name}": f"[{', '.join(map(str, port.dims))}] {port.meaning}"
        for side, port in ports
    }


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
