"""`weakmask predict`: a final model on new images; it needs nothing but its weights file.

weakmask predict data/semantic.safetensors photos/ -o out
weakmask predict data/instance.safetensors 'photos/**/*.jpg' -o out --score 0.5
weakmask predict data/semantic.safetensors a.jpg b.jpg -o out --scales 0.75,1,1.25 --flip --no-crf
weakmask predict data/semantic.safetensors aerial.png -o out --tile 1024 --overlap 256
"""

from functools import partial
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from pipeline.core.device import Runtime, find_device, resolve
from pipeline.errors import UserError, count
from pipeline.export.images import prepare
from pipeline.params import parse, presets
from pipeline.params.section import Scales, Sides
from pipeline.readers.inputs import find_images
from pipeline.tiles import Tiling

DEFAULTS = "folder"
"""The preset for one's own images, whose CRF and batches are used."""
OWNERS = {
    "scales": "semantic",
    "flip": "semantic",
    "crf": "semantic",
    "tile": "semantic",
    "overlap": "semantic",
    "sides": "instance",
    "score": "instance",
}
"""Options that apply to one kind of model only."""
TILE = 2048
"""Side in pixels of the tiles of larger images by default."""


def parse_numbers(
    kind: Any, what: str, context: click.Context, option: click.Parameter, text: str | None
) -> Any:
    """Parse comma-separated numbers as a kind of parameter, a click callback."""
    try:
        return None if text is None else TypeAdapter(kind).validate_python(text.split(","))
    except ValidationError as error:
        raise click.BadParameter(f"{text!r}: not {what}", context, option) from error


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to."
)
@click.option(
    "--scales",
    default="1",
    show_default=True,
    callback=partial(parse_numbers, Scales, "scales above 0 and at most 8"),
    help="semantic: scales of the image to average probabilities over, such as 0.75,1,1.25.",
)
@click.option(
    "--tile",
    metavar="SIDE",
    type=click.IntRange(128),
    help="semantic: keep the resolution of the images, and predict them in tiles of this side in "
    "pixels (a multiple of 32); by default they are resized to sizes the model was trained at.",
)
@click.option(
    "--overlap",
    metavar="PIXELS",
    type=click.IntRange(0),
    show_default="a quarter of SIDE",
    help="semantic: minimum overlap of neighboring tiles, where they are blended.",
)
@click.option("--flip", is_flag=True, help="semantic: also average over the flipped image.")
@click.option(
    "--crf/--no-crf",
    default=True,
    show_default=True,
    help="semantic: refine masks along the edges of the image.",
)
@click.option(
    "--sides",
    show_default="those it was trained at, else the image's own",
    callback=partial(parse_numbers, Sides, "two sides, the shorter first"),
    help="instance: resize the shorter side to the first number of pixels, unless the longer side "
    "then exceeds the second, such as 640,853.",
)
@click.option(
    "--score",
    default=0.3,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="instance: drop instances with a lower score.",
)
@click.option(
    "--overlays/--no-overlays",
    default=True,
    show_default=True,
    help="Draw the results over the images.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto (a GPU if there is one), cpu, cuda, cuda:N.",
)
@click.option(
    "--workers",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Processes that read, refine and write; 0: one per core, fewer for few images.",
)
@click.option(
    "--force", is_flag=True, help="Write into a folder that is not empty, overwriting files."
)
@click.pass_context
def predict(
    context: click.Context, model: Path, images: tuple[str, ...], output: Path, **options: Any
) -> None:
    """Segment new images with a final model.

    MODEL is a semantic.safetensors or instance.safetensors; IMAGES are folders, files, or patterns
    in quotes. No other file of the run is needed. A semantic model writes masks/*.png, palette
    images whose values labelmap.csv lists. An instance model writes instances.json in COCO's
    format, with RLE masks and scores. Both draw overlays/*.jpg. Sub-folders are preserved. Images
    that cannot be read are listed at the end, and the exit status is 1. An interrupted run leaves
    only complete files; start it again with --force.
    """
    # importing the networks takes seconds, which other commands need not spend
    from pipeline.export.predictions import (
        INSTANCES_JSON,
        LABELMAP,
        MASKS,
        OVERLAYS,
        OutputPaths,
        check_output_folder,
        plan,
        predict_instances,
        predict_labels,
    )
    from pipeline.predict import (
        final_header,
        instance_predictor,
        semantic_predictor,
        shown_size,
        trained_sides,
    )

    header = final_header(model)
    _check_options(context, model, header["kind"])
    tiling = _tiling(options["tile"], options["overlap"])
    inputs = find_images(images)
    check_output_folder(output, inputs)
    runtime = _runtime(options["device"], options["workers"])
    paths = OutputPaths(output, header["classes"], options["overlays"], inputs.files)
    if header["kind"] == "semantic":
        crf = parse(presets.load(DEFAULTS)).predictions.crf.model_dump()
        crf["iterations"] *= options["crf"]
        scales, flip = options["scales"], options["flip"]
        labels = semantic_predictor(model, runtime.device, scales=scales, flip=flip)
        shown = (lambda size: size) if options["tile"] else partial(shown_size, header)
        parts = plan(inputs.files, shown, tiling)
        prepare(output, force=options["force"])
        summary = predict_labels(labels, paths, parts, tiling, crf, runtime)
        results = f"label maps in {output / MASKS}, their values in {output / LABELMAP}"
        if resized := len({part.name for part in parts.values() if part.shown != part.size}):
            results += (
                f" ({count(resized, 'image')} resized for the model, whose training images had "
                "longest sides of {} to {} pixels; --tile keeps the resolution)".format(
                    *header["longest"]
                )
            )
    else:
        sides = options["sides"] or trained_sides(header)
        detect = instance_predictor(model, runtime.device, score=options["score"], sides=sides)
        prepare(output, force=options["force"])
        summary = predict_instances(detect, paths, runtime)
        results = f"{count(summary.instances, 'instance')} in {output / INSTANCES_JSON}"
    done = count(len(inputs.files) - len(summary.failures), "image")
    click.echo(f"wrote the results of {done}: {results}")
    if options["overlays"]:
        click.echo(f"drew them in {output / OVERLAYS}")
    if inputs.foreign:
        example = f"{count(len(inputs.foreign), 'file')}, such as {inputs.foreign[0]}"
        click.echo(f"skipped, as only JPEG, PNG and WebP are supported: {example}")
    if summary.failures:
        reasons = "\n".join(f"  {reason}" for _, reason in sorted(summary.failures.items()))
        failed = f"{len(summary.failures)} of {count(len(inputs.files), 'image')}"
        raise UserError(f"{failed} failed:\n{reasons}")


def _check_options(context: click.Context, model: Path, kind: str) -> None:
    """Raise UserError for an option that does not apply to the kind of model."""
    for name, owner in OWNERS.items():
        default = context.get_parameter_source(name) is click.core.ParameterSource.DEFAULT
        if not default and owner != kind:
            raise UserError(f"--{name}: applies to {owner} models only; omit it for {model}")


def _tiling(side: int | None, overlap: int | None) -> Tiling:
    """Return the tiles that the options ask for; raise UserError for an unusable overlap."""
    from pipeline.nets.backbones import OUTPUT_STRIDE

    if overlap is not None and side is None:
        raise UserError("--overlap: needs --tile, the side of the tiles that overlap")
    side = (side or TILE) // (2 * OUTPUT_STRIDE) * 2 * OUTPUT_STRIDE
    overlap = side // 4 if overlap is None else overlap
    if 2 * overlap > side:
        raise UserError(f"--overlap: {overlap} is more than half of --tile {side}; use less")
    return Tiling(side, (side - overlap) // OUTPUT_STRIDE * OUTPUT_STRIDE)


def _runtime(device: str, workers: int) -> Runtime:
    """Resolve the runtime; a CPU runs images one by one."""
    found = find_device(device, "--device")
    settings = parse(presets.load(DEFAULTS)).runtime.model_dump()
    settings |= {"device": str(found), "workers": workers}
    if found.type == "cpu":
        settings["batch"] = 1
    return resolve(**settings)
