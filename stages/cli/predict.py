"""`weakmask predict`: a final model on new images; its weights file is all it needs.

weakmask predict data/semantic.safetensors photos/ -o out weakmask predict data/instance.safetensors
'photos/**/*.jpg' -o out --score 0.5 weakmask predict data/semantic.safetensors photos/a.jpg
photos/b.jpg -o out --scales 0.75,1,1.25 --flip --no-crf
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.core.device import Runtime, find_device, resolve
from pipeline.errors import UserError
from pipeline.export.files import prepare
from pipeline.params import parse, presets
from pipeline.readers.inputs import InputImages, find_images

if TYPE_CHECKING:
    from pipeline.predict import Outcome, Output

Number = TypeVar("Number", int, float)
DEFAULTS = "folder"
"""The preset for one's own images, whose CRF and batches are used."""
OWNERS = {
    "scales": "semantic",
    "flip": "semantic",
    "crf": "semantic",
    "sides": "instance",
    "score": "instance",
}
"""Options that mean something to one kind of model alone."""


def numbers(
    kind: Callable[[str], Number], allowed: Callable[[list[Number]], bool], what: str
) -> Callable[[click.Context, click.Parameter, str | None], list[Number] | None]:
    """What makes a list of an option's text, numbers with commas between; all others are refused as
    not `what`.
    """

    def convert(
        context: click.Context, option: click.Parameter, text: str | None
    ) -> list[Number] | None:
        """The numbers of an option that was given."""
        if text is None:
            return None
        try:
            values = [kind(part) for part in text.split(",")]
        except ValueError:
            values = []
        if not values or not allowed(values):
            raise click.BadParameter(f"{text!r} is not {what}", context, option)
        return values

    return convert


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
    callback=numbers(
        float, lambda given: min(given) > 0 and max(given) <= 8, "scales above 0, at most 8"
    ),
    help="semantic: scales of the image whose probabilities are averaged, such as 0.75,1,1.25.",
)
@click.option("--flip", is_flag=True, help="semantic: average the flipped image in.")
@click.option(
    "--crf/--no-crf",
    default=True,
    show_default=True,
    help="semantic: follow the image's own edges.",
)
@click.option(
    "--sides",
    show_default="those it was trained at, else the image's own",
    callback=numbers(
        int,
        lambda given: len(given) == 2 and 0 < given[0] <= given[1],
        "two sides, the shorter first",
    ),
    help="instance: pixels of the shorter side, and the most that the other may have, such as 640,853.",
)
@click.option(
    "--score",
    default=0.3,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="instance: leave out what scores below.",
)
@click.option(
    "--overlays/--no-overlays",
    default=True,
    show_default=True,
    help="Draw what is found over the images.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto (a GPU where there is one), cpu, cuda, cuda:N.",
)
@click.option(
    "--workers",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Processes that read, refine and write; 0: one a core, fewer for few images.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Write into a folder that is not empty and replace files of the same name.",
)
@click.pass_context
def predict(
    context: click.Context, model: Path, images: tuple[str, ...], output: Path, **options: Any
) -> None:
    """Find classes or instances in new images.

    MODEL is a semantic.safetensors or instance.safetensors, IMAGES are folders, files, or patterns
    in quotes; no other file of the run is needed. A semantic model writes masks/*.png, palette
    images whose values labelmap.csv names. An instance model writes instances.json: COCO's layout
    with run lengths and scores. Both draw overlays/*.jpg. Sub-folders stay. An image that cannot be
    read is named at the end, where the exit status is then 1. Interrupted, it leaves whole files
    only; start it again with --force.
    """
    # the networks take seconds to import, which other commands need not wait for
    from pipeline import predict

    header = predict.final_header(model)
    _check_options(context, model, header["kind"])
    given = find_images(images)
    predict.spare_images(output, given)
    runtime = _runtime(options["device"], options["workers"])
    run = {"semantic": _label, "instance": _find}[header["kind"]](model, header, runtime, options)
    prepare(output, force=options["force"])
    outcome = run(predict.Output(output, header["classes"], options["overlays"], given.files))
    click.echo(
        "\n".join(_told(outcome, output, header["kind"], given, overlays=options["overlays"]))
    )
    if outcome.failures:
        reasons = "\n".join(f"  {reason}" for _, reason in sorted(outcome.failures.items()))
        raise UserError(f"{len(outcome.failures)} of {len(given.files)} images failed:\n{reasons}")


def _label(
    model: Path, header: Mapping[str, Any], runtime: Runtime, options: Mapping[str, Any]
) -> Callable[["Output"], "Outcome"]:
    """What writes the label maps of a semantic model."""
    from pipeline import predict

    label = predict.labeller(model, runtime.device, scales=options["scales"], flip=options["flip"])
    crf = parse(presets.load(DEFAULTS)).predictions.crf.model_dump()
    if not options["crf"]:
        crf["iterations"] = 0
    return lambda output: predict.predict_labels(label, output, crf, runtime)


def _find(
    model: Path, header: Mapping[str, Any], runtime: Runtime, options: Mapping[str, Any]
) -> Callable[["Output"], "Outcome"]:
    """What writes the instances of an instance model."""
    from pipeline import predict

    sides = options["sides"] or predict.trained_sides(header)
    find = predict.finder(model, runtime.device, score=options["score"], sides=sides)
    return lambda output: predict.predict_instances(find, output, runtime)


def _check_options(context: click.Context, model: Path, kind: str) -> None:
    """Raise UserError for an option that the model knows nothing of."""
    for name, owner in OWNERS.items():
        given = context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        if given and owner != kind:
            raise UserError(f"--{name}: belongs to {owner} models; leave it away for {model}")


def _runtime(device: str, workers: int) -> Runtime:
    """The machine; on a CPU images go through the networks one by one."""
    found = find_device(device, "--device")
    settings = parse(presets.load(DEFAULTS)).runtime.model_dump() | {
        "device": str(found),
        "workers": workers,
    }
    return resolve(**settings | ({"batch": 1} if found.type == "cpu" else {}))


def _told(
    outcome: "Outcome", output: Path, kind: str, given: InputImages, *, overlays: bool
) -> list[str]:
    """What was written, line by line."""
    from pipeline.predict import INSTANCES, LABELMAP, MASKS, OVERLAYS

    results = {
        "semantic": f"label maps to {output / MASKS}, what their values mean to {output / LABELMAP}",
        "instance": f"{outcome.instances} instances to {output / INSTANCES}",
    }
    lines = [f"wrote the results of {outcome.images} images: {results[kind]}"]
    if overlays:
        lines.append(f"drew them in {output / OVERLAYS}")
    if given.foreign:
        example = f"{len(given.foreign)} files such as {given.foreign[0]}"
        lines.append(f"left out, as only JPEG, PNG and WebP are read: {example}")
    return lines
