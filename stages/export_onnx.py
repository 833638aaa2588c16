"""`weakmask export-onnx`: a final model as an ONNX file, checked in onnxruntime against PyTorch before it is written.

weakmask export-onnx data/semantic.safetensors -o semantic.onnx
weakmask export-onnx data/instance.safetensors -o instance.onnx --opset 20
"""

from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.errors import UserError
from pipeline.export.files import write
from pipeline.onnx.checking import Row, check
from pipeline.onnx.writing import OPSET, require_opset, require_packages, to_onnx


@click.command("export-onnx")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option(
    "--opset", default=OPSET, show_default=True, type=click.INT, help="Version of ONNX's operators to use."
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
def export_onnx(model: Path, output: Path, opset: int, force: bool) -> None:
    """Write a final model as ONNX.

    MODEL is a semantic.safetensors, or the instance.safetensors of SparseInst. The file takes pictures as they are, of any size and
    number, and gives masks; what goes in and comes out is written in it. It is compared with PyTorch on several sizes first, and not
    written if the masks differ.
    """
    # the networks take seconds to import, which other commands need not wait for
    from pipeline.onnx.graphs import graph_of

    require_packages()
    require_opset(opset)
    if output.is_dir():
        raise UserError(
            f"-o {output}: is a folder; name a file such as {output / model.with_suffix('.onnx').name}"
        )
    if output.exists() and not force:
        raise UserError(f"-o {output}: exists; add --force to replace it")
    graph = graph_of(model)
    click.echo(
        f"exporting {graph.properties['task']}, {graph.properties['backbone']}; this takes about half a minute"
    )
    content = to_onnx(graph, opset)
    click.echo("\n".join(table(check(content, graph))))
    write(output, content)
    click.echo(f"wrote {output}, {len(content) / 1e6:.1f} MB")
    for ports, side in ((graph.inputs, "in"), (graph.outputs, "out")):
        for port in ports:
            click.echo(f"  {side}: {port.name} [{', '.join(map(str, port.dims))}], {port.meaning}")


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of a table of what was compared, times in milliseconds."""
    lines = [f"{'pictures':>14} {'agreement':>10} {'difference':>11} {'PyTorch':>9} {'onnxruntime':>12}"]
    for row in rows:
        count, height, width = row.size
        times = f"{1e3 * row.torch_seconds:>6.0f} ms {1e3 * row.onnx_seconds:>9.0f} ms"
        lines.append(
            f"{f'{count} x {width}x{height}':>14} {row.agreement:>10.6f} {row.difference:>11.1e} {times}"
        )
    return lines
