"""The weakmask command: what DVC does not do (write parameters, check a source, inspect, export).

weakmask fetch voc12 --to ~/voc
weakmask init --preset folder --source ~/images
weakmask check ~/images
weakmask run
weakmask inspect data/cams.h5 2007_000504 -o sheet.png
weakmask browse --rev one-scale
weakmask export labels --format voc -o exported
weakmask report-diff HEAD data/report
weakmask predict data/semantic.safetensors photos/ -o out
weakmask export-onnx data/semantic.safetensors -o semantic.onnx
weakmask import res50_cam.pth --from irn-cam -o data/classifier.safetensors
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.errors import UserError
from pipeline.params import presets
from pipeline.views.report import percent
from stages._command import DATA, artifact, read_parameters
from stages.cli.browse import browse
from stages.cli.compare import compare
from stages.cli.export import export
from stages.cli.export_onnx import export_onnx
from stages.cli.fetch import fetch
from stages.cli.import_weights import import_weights
from stages.cli.inspect import inspect
from stages.cli.predict import predict
from stages.cli.report_diff import report_diff
from stages.cli.run import run
from stages.experiments.dvc_cache import is_tracked

SCORED = ("cams", "seeds", "walk", "labels", "predictions")
"""Stages that `scores` prints."""


def expand(context: click.Context, option: click.Parameter, text: str | None) -> Path | None:
    """Return a path with `~` expanded, which the shell leaves in quotes, a click callback."""
    return None if text is None else Path(text).expanduser()


class Commands(click.Group):
    """A group whose commands report a UserError in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn a UserError into click's error."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Weakly supervised segmentation: images and their tags in, masks and trained models out.

    Run the pipeline with `weakmask run` or `dvc repro`, variants with
    `dvc exp run -S section.name=value`.
    """


@main.command()
@click.option(
    "--preset",
    default="folder",
    show_default=True,
    help="Parameters to start from; an unknown name lists all presets.",
)
@click.option("--source", callback=expand, help="Folder of the images.")
@click.option(
    "-o", "--output", default="params.yaml", show_default=True, type=click.Path(path_type=Path)
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(preset: str, source: Path | None, output: Path, force: bool) -> None:
    """Write params.yaml from a preset for your own images."""
    text = presets.text(preset)
    if output.exists() and not force:
        raise UserError(f"{output}: exists; add --force to replace it")
    if source is None and preset != "scenes":
        raise UserError(f"--source: preset {preset} needs the folder of your images")
    next_steps = "dvc repro"
    if source is not None:
        section, title = _describe(source, presets.load(preset)["dataset"])
        text = presets.replace(text, {"dataset": section})
        click.echo(f"{source}: {title}")
        next_steps = f"weakmask check {section['source']}, then dvc repro"
    output.write_text(text, encoding="utf-8")
    click.echo(f"wrote {output}; next: {next_steps}")


def _describe(source: Path, preset: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return section `dataset` for a source and what the source is; raise UserError.

    The preset's files are kept if the source has them, such as the list train_aug of voc12.
    """
    from pipeline.readers.layout import recognize

    if not source.is_dir():
        raise UserError(f"--source: {source} is not a folder")
    if Path.cwd().is_relative_to(source.resolve()):
        raise UserError(
            f"--source: {source} contains this project; put the images into a folder of their own, "
            "such as photos/"
        )
    layout = recognize(source)
    section = layout.parameters()
    named = {
        "voc": [f"ImageSets/Segmentation/{name}.txt" for name in preset["voc"].values()],
        "coco": list(preset["coco"].values()),
    }.get(layout.format, [])
    if preset["format"] == layout.format and all((source / file).exists() for file in named):
        section = {"format": layout.format}
    # A relative path holds in DVC's temporary copies of the repository, but only if Git or DVC
    # tracks what is there.
    inside = source.resolve().is_relative_to(Path.cwd()) and is_tracked(source)
    return section | {"source": str(source if inside else source.resolve())}, layout.title


@main.command()
@click.argument("source", required=False, callback=expand)
@click.option(
    "--format",
    "format_",
    default="auto",
    show_default=True,
    type=click.Choice(("auto", "folder", "classes", "voc", "coco", "yolo")),
    help="Layout of the folder; auto is that of params.yaml for its own source, else a guess.",
)
@click.option("--all", "every", is_flag=True, help="List every problem, not three of a kind.")
def check(source: Path | None, format_: str, every: bool) -> None:
    """Report every problem of a SOURCE folder at once, and its classes.

    SOURCE is that of params.yaml by default. The exit status is 1 if there are errors, at which the
    stage dataset stops; warnings do not count.
    """
    from pipeline.data.images import summarize
    from pipeline.readers.validation import check as check_source

    options: dict[str, Any] = {}
    parameters = Path("params.yaml")
    if source is None or (format_ == "auto" and parameters.is_file()):
        section = read_parameters(parameters).dataset
        if source is None and section.format == "scenes":
            raise UserError(f"{parameters}: scenes need no check; name the folder of your images")
        if source is None or source.resolve() == Path(section.source).resolve():
            source, format_ = Path(section.source), section.format
            options = {"classes": section.classes, "val": section.val}
            options |= {"lists": section.voc.lists(), "annotations": section.coco.annotations()}
    survey = check_source(format_, source, **options)
    click.echo(f"{source}: {survey.title}{f', as {parameters} says' if options else ''}")
    for level, line in summarize(survey.problems, every=every):
        click.echo(f"{level}: {line}")
    counts = ", ".join(f"{name} {count}" for name, count in survey.count_classes().items())
    click.echo(f"classes and their images: {counts or 'none'}")
    warnings = len(survey.problems) - survey.errors
    click.echo(f"{source}: {survey.errors} errors, {warnings} warnings")
    sys.exit(1 if survey.errors else 0)


@main.command()
def scores() -> None:
    """Print the scores of all steps and the path of the report."""
    rows = [("step", "split", "mIoU", "instance AP50")]
    for name, key, split, title in (
        ("cams", "best_miou", "train", "cams, best threshold"),
        ("cams", "miou", "train", "cams"),
        ("seeds", "miou", "train", "seeds"),
        ("walk", "best_miou", "train", "walk, best threshold"),
        ("labels", "miou", "train", "labels"),
        ("predictions", "miou", "val", "predictions"),
    ):
        path = artifact(f"scores/{name}", ".json")
        values = _scores_of(path, name) if path.is_file() else {}
        note = f"  of {percent(values['coverage'])} % of the pixels" if "coverage" in values else ""
        ap50 = percent(values.get("AP50")) if name in ("labels", "predictions") else ""
        rows.append((title, split, percent(values.get(key)) + note, ap50))
    if not any(artifact(f"scores/{name}", ".json").is_file() for name in SCORED):
        raise UserError(
            f"{DATA / 'scores'}: no scores here; run `dvc repro` in the folder of the project, on "
            "images of which some have masks"
        )
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    click.echo(f"report: {DATA / 'report' / 'index.html'}")


def _scores_of(path: Path, name: str) -> Mapping[str, float]:
    """Return the scores of a step, which stage scores wrote in percent, as ratios."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))[name]
        return {key: float(value) / 100 for key, value in values.items() if value is not None}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: damaged ({error}); recreate it with `dvc repro -f scores@{name}`"
        ) from error


main.add_command(browse)
main.add_command(compare)
main.add_command(export)
main.add_command(export_onnx)
main.add_command(fetch)
main.add_command(import_weights)
main.add_command(inspect)
main.add_command(predict)
main.add_command(report_diff)
main.add_command(run)


if __name__ == "__main__":
    main()
