"""`weakmask export-onnx`: a final model as an ONNX file, checked against PyTorch before writing.

weakmask export-onnx data/semantic.safetensors -o semantic.onnx
weakmask export-onnx data/instance.safetensors -o instance.onnx --opset 20
"""

from pathlib import Path

import click

from pipeline.core.resume import write_atomically
from pipeline.errors import UserError


@click.command("export-onnx")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write."
)
@click.option(
    "--opset", default=18, show_default=True, type=click.INT, help="Version of ONNX's operators."
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def export_onnx(model: Path, output: Path, opset: int, force: bool) -> None:
    """Write a final model as ONNX.

    MODEL is a semantic.safetensors, or the instance.safetensors of SparseInst. The file takes
    batches of RGB images of any size and returns masks; its metadata describes inputs and outputs.
    Its masks are compared with PyTorch's at several sizes first, and it is not written if they
    differ.
    """
    # importing the networks takes seconds, which other commands need not spend
    from pipeline import onnx

    onnx.require(opset)
    if output.is_dir():
        example = output / model.with_suffix(".onnx").name
        raise UserError(f"-o {output}: is a folder; name a file such as {example}")
    if output.exists() and not force:
        raise UserError(f"-o {output}: exists; add --force to overwrite it")
    exported = onnx.load_model(model)
    task, backbone = exported.metadata["task"], exported.metadata["backbone"]
    click.echo(f"exporting {task}, {backbone}; this takes about half a minute")
    content = onnx.to_onnx(exported, opset)
    for (count, height, width), iou in onnx.check_agreement(content, exported):
        click.echo(f"  {count} x {width}x{height}: IoU {iou:.6f} between onnxruntime and PyTorch")
    write_atomically(output, content)
    click.echo(f"wrote {output}, {len(content) / 1e6:.1f} MB")
    for side, ports in (("in", exported.inputs), ("out", exported.outputs)):
        for port in ports:
            click.echo(f"  {side}: {port.name} [{', '.join(map(str, port.dims))}], {port.meaning}")
