"""The weakmask command: what DVC does not do (write parameters, check a source, inspect, export).

weakmask fetch voc12 --to ~/voc
weakmask init --preset folder --source ~/images
weakmask check ~/images
weakmask inspect data/cams.h5 2007_000504 -o sheet.png
weakmask browse --rev one-scale
weakmask export labels --format voc -o exported
weakmask report-diff HEAD data/report
weakmask predict data/semantic.safetensors photos/ -o out
weakmask export-onnx data/semantic.safetensors -o semantic.onnx
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
from stages._command import DATA, artifact
from stages.cli.browse import browse
from stages.cli.compare import compare
from stages.cli.export import export
from stages.cli.export_onnx import export_onnx
from stages.cli.fetch import fetch
from stages.cli.inspect import inspect
from stages.cli.predict import predict
from stages.cli.report_diff import report_diff


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

    Run the pipeline with `dvc repro`, variants with `dvc exp run -S section.name=value`.
    """


@main.command()
@click.option(
    "--preset",
    default="folder",
    show_default=True,
    help="Parameters to start from; an unknown name lists all presets.",
)
@click.option("--source", type=click.Path(path_type=Path), help="Folder of the images.")
@click.option(
    "-o", "--output", default="params.yaml", show_default=True, type=click.Path(path_type=Path)
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(preset: str, source: Path | None, output: Path, force: bool) -> None:
    """Write params.yaml from a preset for your own images."""
    from pipeline.readers.validation import guess

    text = presets.text(preset)
    if output.exists() and not force:
        raise UserError(f"{output}: exists; add --force to replace it")
    if source is None and preset != "scenes":
        raise UserError(f"--source: preset {preset} needs the folder of your images")
    if source is None:
        next_steps = "dvc repro"
    elif not source.is_dir():
        raise UserError(f"--source: {source} is not a folder")
    else:
        # A relative path holds in DVC's temporary copies of the repository, but only inside of it.
        inside = source.resolve().is_relative_to(Path.cwd())
        path = str(source if inside else source.resolve())
        text = presets.replace(text, {"dataset": {"source": path, "format": guess(source)}})
        next_steps = f"weakmask check {path}, then dvc repro"
    output.write_text(text, encoding="utf-8")
    click.echo(f"wrote {output}; next: {next_steps}")


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_",
    default="auto",
    show_default=True,
    type=click.Choice(("auto", "voc", "coco", "folder")),
    help="Layout of the folder; auto guesses it.",
)
def check(source: Path, format_: str) -> None:
    """Report every problem of a SOURCE folder at once.

    The exit status is 1 if there are errors, at which the stage dataset stops; warnings do not
    count.
    """
    from pipeline.readers.validation import check as check_source

    problems = check_source(format_, source)
    for problem in problems:
        click.echo(f"{problem.level}: {problem}")
    errors = sum(problem.level == "error" for problem in problems)
    click.echo(f"{source}: {errors} errors, {len(problems) - errors} warnings")
    sys.exit(1 if errors else 0)


@main.command()
def scores() -> None:
    """Print the scores of all steps and the path of the report."""
    rows = [("step", "split", "mIoU", "instance AP50")]
    for name, key, split, title in (
        ("cams", "best_miou", "train", "CAM, best threshold"),
        ("cams", "miou", "train", "CAM, fixed threshold"),
        ("seeds", "miou", "train", "seeds, where labeled"),
        ("walk", "best_miou", "train", "walk, best threshold"),
        ("labels", "miou", "train", "pseudo-labels"),
        ("predictions", "miou", "val", "final models"),
    ):
        path = artifact(f"scores/{name}", ".json")
        values = _scores_of(path, name) if path.is_file() else {}
        note = f"  of {percent(values['coverage'])} % of the pixels" if "coverage" in values else ""
        ap50 = percent(values.get("AP50")) if name in ("labels", "predictions") else ""
        rows.append((title, split, percent(values.get(key)) + note, ap50))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    click.echo(f"report: {DATA / 'report' / 'index.html'}")


def _scores_of(path: Path, name: str) -> Mapping[str, float]:
    """Return the scores of a step that the stage scores wrote; raise UserError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))[name]
        return {key: float(value) for key, value in values.items() if value is not None}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: damaged ({error}); recreate it with `dvc repro -f scores@{name}`"
        ) from error


main.add_command(browse)
main.add_command(compare)
main.add_command(export)
main.add_command(export_onnx)
main.add_command(fetch)
main.add_command(inspect)
main.add_command(predict)
main.add_command(report_diff)


if __name__ == "__main__":
    main()
