"""`weakmask export`: pseudo-labels or predictions in the formats of other tools.

weakmask export labels --format voc -o exported --images copy
weakmask export predictions --format coco --min-score 0.3 -o exported
weakmask export data/labels.h5 --format yolo --split train --images link -o exported
"""

from pathlib import Path
from typing import Any

import click

from pipeline.core.artifacts import Reader
from pipeline.data.index import Index
from pipeline.errors import UserError, count
from pipeline.export import coco, voc, yolo
from pipeline.export.images import ExportImages, Summary, Target, keep_out, prepare, write_tags
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
    type=click.FloatRange(0, 1),
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
    only outlines. VOC and COCO get the tags as labels.csv, so that `weakmask init` reads them again
    (with --images copy or link). What a format cannot represent is counted at the end. An
    interrupted export leaves only complete files; repeat it with --force.
    """
    _check_options(format_, polygons=polygons, parts=parts)
    reader = Reader(artifact(source) if source in SOURCES else Path(source))
    if reader.format not in SOURCES:
        raise UserError(
            f"{reader.path}: contains {reader.format}; export one of {', '.join(SOURCES)}"
        )
    index = Index.load(DATASET)
    samples = ExportImages(reader, select(reader, index, split), len(reader.classes), min_score)
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
    if format_ != "yolo":
        tags = {name: index.tags(name) for name in samples.names}
        write_tags(output, tags, target.splits)
    click.echo("\n".join(_report(summary, samples, output, min_score)))
    if target.rotated:
        click.echo(
            "images that readers without regard to EXIF see rotated against their masks: "
            f"{len(target.rotated)}, such as {', '.join(target.rotated[:3])}; "
            "--images copy writes them upright"
        )


def _check_options(format_: str, *, polygons: bool, parts: str | None) -> None:
    for option, given, owner in (
        ("--polygons", polygons, "coco"),
        ("--parts", parts is not None, "yolo"),
    ):
        if given and format_ != owner:
            raise UserError(f"{option}: applies to --format {owner}; omit it for {format_}")


def select(reader: Reader, index: Index, split: str | None) -> list[str]:
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
    written = f"{count(len(images), 'image')} and {count(summary.instances, 'instance')}"
    lines = [f"wrote {written} to {output}"]
    if images.left_out:
        lines.append(
            f"left out below --min-score {min_score:g} or without a pixel: {images.left_out}"
        )
    return [*lines, *summary.lost]
