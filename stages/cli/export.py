"""`weakmask export`: pseudo-labels or predictions in the formats of other tools.

weakmask export labels --format voc -o exported --images copy
weakmask export predictions --format coco --min-score 0.3 -o exported
weakmask export data/labels.h5 --format yolo --split train --images link -o exported

`weakmask export-onnx`: a final model as an ONNX file, checked in onnxruntime against PyTorch before
it is written.

weakmask export-onnx data/semantic.safetensors -o semantic.onnx
weakmask export-onnx data/instance.safetensors -o instance.onnx --opset 20
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pipeline.core.artifacts import Reader
from pipeline.data.index import Index
from pipeline.errors import UserError
from pipeline.export import coco, voc, yolo
from pipeline.export.files import keep_out, prepare, write
from pipeline.export.images import ExportImages, Summary, Target
from pipeline.onnx.checking import Row, check
from pipeline.onnx.writing import OPSET, require_opset, require_packages, to_onnx
from stages._command import DATASET, artifact

SOURCES = ("labels", "predictions")
FORMATS = ("voc", "coco", "yolo")


@click.command()
@click.argument("source", metavar="[labels|predictions|PATH.h5]", default="labels")
@click.option(
    "--format", "format_", required=True, type=click.Choice(FORMATS), help="Format to write."
)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to."
)
@click.option("--polygons", is_flag=True, help="coco: polygons (approximate) instead of RLE.")
@click.option(
    "--parts",
    type=click.Choice(("join", "split")),
    help="yolo: one line per instance (default), or one line per part of an instance.",
)
@click.option(
    "--min-score",
    default=0.05,
    show_default=True,
    type=float,
    help="Minimum score of an instance.",
)
@click.option("--split", help="Export only this split, such as train or val.")
@click.option(
    "--images",
    default="none",
    show_default=True,
    type=click.Choice(("copy", "link", "none")),
    help="Whether to copy or link the image files.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Write to a folder that is not empty, replacing files of the same name.",
)
def export(
    source: str,
    format_: str,
    output: Path,
    polygons: bool,
    parts: str | None,
    min_score: float,
    split: str | None,
    images: Any,
    force: bool,
) -> None:
    """Export masks as VOC, COCO or YOLO.

    VOC has semantic maps and instances without overlaps, COCO everything but semantic maps, YOLO
    only outlines. What a format cannot represent is counted at the end. An interrupted export
    leaves only complete files; repeat it with --force.
    """
    _check_options(format_, polygons=polygons, parts=parts)
    reader = Reader(artifact(source) if source in SOURCES else Path(source))
    if reader.format not in SOURCES:
        raise UserError(
            f"{reader.path}: contains {reader.format}; export one of {', '.join(SOURCES)}"
        )
    index = Index.load(DATASET)
    samples = ExportImages(reader, _select(reader, index, split), len(reader.classes), min_score)
    target = Target(
        output,
        reader.classes,
        {name: index.images_root / index[name].path for name in samples.names},
        {name: index[name].split for name in samples.names},
        images,
    )
    for root in (index.images_root, index.masks_root, DATASET):  # never overwrite ground truth
        keep_out(output, root, "the dataset is")
    prepare(output, force=force)
    if format_ == "voc":
        summary = voc.export(samples, target)
    elif format_ == "coco":
        file = f"instances_{split or 'default'}.json"
        summary = coco.export(samples, target, file=file, polygons=polygons)
    else:
        summary = yolo.export(samples, target, parts="split" if parts == "split" else "join")
    click.echo("\n".join(_report(summary, samples, output, min_score)))


def _check_options(format_: str, *, polygons: bool, parts: str | None) -> None:
    for option, given, owner in (
        ("--polygons", polygons, "coco"),
        ("--parts", parts is not None, "yolo"),
    ):
        if given and format_ != owner:
            raise UserError(f"{option}: applies to --format {owner}; omit it for {format_}")


def _select(reader: Reader, index: Index, split: str | None) -> list[str]:
    """Return the images of a split in the artifact.

    Raises UserError if there are none, or if the dataset lacks some of the artifact's images.
    """
    unknown = [name for name in reader.names if name not in index]
    if unknown:
        raise UserError(
            f"{reader.path}: {DATASET} lacks {', '.join(map(repr, unknown[:3]))} "
            f"({len(unknown)} of {len(reader)} images); run `dvc repro {reader.format}`"
        )
    chosen = frozenset(index.select(split))
    names = [name for name in reader.names if name in chosen]
    if not names:
        splits = ", ".join(sorted({index[name].split for name in reader.names})) or "none"
        raise UserError(f"{reader.path}: has no image of split {split!r}; its splits: {splits}")
    return names


def _report(summary: Summary, images: ExportImages, output: Path, min_score: float) -> list[str]:
    lines = [f"wrote {summary.images} images and {summary.instances} instances to {output}"]
    if images.left_out:
        lines.append(
            f"left out below --min-score {min_score:g} or without a pixel: {images.left_out}"
        )
    return [*lines, *summary.lost]


@click.command("export-onnx")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write."
)
@click.option(
    "--opset",
    default=OPSET,
    show_default=True,
    type=click.INT,
    help="Version of ONNX's operators to use.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
def export_onnx(model: Path, output: Path, opset: int, force: bool) -> None:
    """Write a final model as ONNX.

    MODEL is a semantic.safetensors, or the instance.safetensors of SparseInst. The file takes
    images as they are, of any size and number, and gives masks; what goes in and comes out is
    written in it. It is compared with PyTorch on several sizes first, and not written if the masks
    differ.
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
    lines = [
        f"{'images':>14} {'agreement':>10} {'difference':>11} {'PyTorch':>9} {'onnxruntime':>12}"
    ]
    for row in rows:
        count, height, width = row.size
        times = f"{1e3 * row.torch_seconds:>6.0f} ms {1e3 * row.onnx_seconds:>9.0f} ms"
        lines.append(
            f"{f'{count} x {width}x{height}':>14} {row.agreement:>10.6f} {row.difference:>11.1e} {times}"
        )
    return lines
